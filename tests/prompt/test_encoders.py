"""The encoders tell lesion types apart; a dropped prompt is zero."""

import pytest
import torch

from promptlesion.prompt.encoders import (
    EmbeddingPrompt,
    MaskTransformerPrompt,
    OneHotPrompt,
    build_prompt_encoder,
    drop_prompts,
)


def test_one_hot_is_one_at_the_type() -> None:
    encoder = OneHotPrompt(num_types=4)
    types = torch.tensor([2, 0, 3])
    embedding = encoder(types, torch.rand(3, 1, 6, 6, 6))
    assert embedding.shape == (3, 4, 1, 1, 1)
    assert torch.equal(embedding.flatten(1), torch.eye(4)[types])
    assert list(encoder.parameters()) == []


def test_an_embedding_is_its_types_learned_vector() -> None:
    encoder, types = EmbeddingPrompt(num_types=4), torch.tensor([2, 0, 2])
    embedding = encoder(types, torch.rand(3, 1, 6, 6, 6))
    assert embedding.shape == (3, 64, 1, 1, 1)
    assert torch.equal(embedding.flatten(1), encoder.vectors.weight[types])
    assert torch.pdist(encoder.vectors.weight).min() > 1
    embedding.sum().backward()
    assert encoder.vectors.weight.grad is not None
    assert encoder.vectors.weight.grad.sum(1).tolist() == [64, 0, 128, 0]


@pytest.mark.parametrize("kind", [OneHotPrompt, EmbeddingPrompt])
def test_the_type_alone_ignores_the_mask(kind: type[OneHotPrompt | EmbeddingPrompt]) -> None:
    encoder, types = kind(num_types=2), torch.tensor([1])
    masks = torch.rand(2, 1, 1, 6, 6, 6)
    assert torch.equal(encoder(types, masks[0]), encoder(types, masks[1]))


def test_the_mask_is_read_in_its_types_channel() -> None:
    torch.manual_seed(0)
    encoder = MaskTransformerPrompt(num_types=3, mask_voxels=6, key_value_heads=1)
    mask = (torch.rand(2, 1, 6, 6, 6) > 0.7).float()
    channels = torch.zeros(2, 3, 6, 6, 6)
    channels[0, 2], channels[1, 0] = mask[0, 0], mask[1, 0]
    types = torch.tensor([2, 0])
    torch.testing.assert_close(encoder(types, mask), encoder.transformer(channels))
    assert encoder.embedding_dimension == 64


def test_a_sample_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    encoder = MaskTransformerPrompt(num_types=2, mask_voxels=6, key_value_heads=4)
    mask, types = torch.rand(3, 1, 6, 6, 6), torch.tensor([0, 1, 1])
    torch.testing.assert_close(encoder(types, mask)[1:2], encoder(types[1:2], mask[1:2]))


def test_dropped_prompts_are_zero_and_the_others_untouched() -> None:
    embedding = torch.randn(4, 5, 1, 1, 1)
    dropped = torch.tensor([True, False, True, False])
    result = drop_prompts(embedding, dropped)
    assert result[dropped].abs().max() == 0
    assert torch.equal(result[~dropped], embedding[~dropped])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("one-hot", OneHotPrompt), ("embedding", EmbeddingPrompt), ("mask-transformer", MaskTransformerPrompt)],
)
def test_built_by_name(name: str, kind: type) -> None:
    assert build_prompt_encoder("none", num_types=2, mask_voxels=7, key_value_heads=1) is None
    assert isinstance(build_prompt_encoder(name, num_types=2, mask_voxels=6, key_value_heads=1), kind)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 'one-hot', 'embedding', 'mask-transformer' or 'none'; found 'text'"):
        build_prompt_encoder("text", num_types=2, mask_voxels=6, key_value_heads=1)
