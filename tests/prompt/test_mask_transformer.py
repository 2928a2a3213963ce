"""The MaskTransformer is the paper's Table 1, parameter by parameter."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptlesion.prompt.mask_transformer import MaskTransformer, TransformerBlock, sinusoidal_positions


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameters_are_those_of_table_1() -> None:
    transformer = MaskTransformer(num_types=5)
    assert num_parameters(transformer.embedding) == 2_880
    assert [num_parameters(block) for block in transformer.blocks] == [43_008] * 3
    assert num_parameters(transformer.head) == 4_288
    assert num_parameters(transformer) == 136_192
    rows = [transformer.embedding, *transformer.blocks, transformer.head, transformer]
    assert [round(num_parameters(row) / 1000) for row in rows] == [3, 43, 43, 43, 4, 136]


def test_output_shapes_are_those_of_table_1() -> None:
    transformer, batch = MaskTransformer(num_types=5), 2
    masks = torch.rand(batch, 5, 24, 24, 24)
    tokens = transformer.embedding(masks)
    assert tokens.shape == (batch, 64, 3, 3, 3)
    tokens = tokens.flatten(2).permute(2, 0, 1)
    for block in transformer.blocks:
        tokens = block(tokens)
        assert tokens.shape == (27, batch, 64)
    assert transformer.head(tokens.mean(dim=0)).shape == (batch, 64)
    assert transformer(masks).shape == (batch, 64, 1, 1, 1)


@pytest.mark.parametrize(("key_value_heads", "expected"), [(1, 43_008), (2, 45_056), (4, 49_152)])
def test_key_and_value_heads_cost_what_they_should(key_value_heads: int, expected: int) -> None:
    """Query and output 64 x 64 each, key and value 64 x 16 a head each, feed-forward 2 x 64 x 256."""
    block = TransformerBlock(dimension=64, query_heads=4, key_value_heads=key_value_heads, feed_forward=256)
    assert num_parameters(block) == 2 * 64 * 64 + 2 * 64 * 16 * key_value_heads + 2 * 64 * 256 == expected


@pytest.mark.parametrize("key_value_heads", [1, 2, 4])
def test_attention_equals_a_plain_implementation(key_value_heads: int) -> None:
    torch.manual_seed(0)
    heads, width = 4, 3
    block = TransformerBlock(
        dimension=heads * width, query_heads=heads, key_value_heads=key_value_heads, feed_forward=20
    )
    tokens = torch.randn(5, 2, heads * width)

    def attention(sample: Tensor) -> Tensor:
        normed = F.layer_norm(sample, (heads * width,))
        query, key, value = block.query(normed), block.key(normed), block.value(normed)
        results = []
        for head in range(heads):
            shared = head * key_value_heads // heads
            q = query[:, head * width : (head + 1) * width]
            k = key[:, shared * width : (shared + 1) * width]
            v = value[:, shared * width : (shared + 1) * width]
            results.append(torch.softmax(q @ k.T / math.sqrt(width), dim=1) @ v)
        return sample + block.output(torch.cat(results, dim=1))

    attended = torch.stack([attention(tokens[:, index]) for index in range(2)], dim=1)
    expected = attended + block.feed_forward(F.layer_norm(attended, (heads * width,)))
    torch.testing.assert_close(block(tokens), expected)


def test_heads_must_divide() -> None:
    with pytest.raises(ValueError, match="key_value_heads: expected a divisor of 4; found 3"):
        TransformerBlock(dimension=64, query_heads=4, key_value_heads=3, feed_forward=256)


def test_masks_must_divide_into_thirds() -> None:
    with pytest.raises(ValueError, match="mask_voxels: expected a multiple of 3; found 16"):
        MaskTransformer(num_types=2, mask_voxels=16)


def test_positions_differ_and_stay_out_of_the_checkpoint() -> None:
    positions = sinusoidal_positions(3, 64)[0].flatten(1).T
    distances = torch.cdist(positions, positions) + torch.eye(27)
    assert distances.min() > 0.1
    assert not any("positions" in name for name in MaskTransformer(num_types=2).state_dict())


def test_each_axis_of_a_position_has_its_own_channels() -> None:
    positions = sinusoidal_positions(3, 64)[0]
    for axis in range(3):
        own = positions[20 * axis : 20 * (axis + 1)]
        others = [other for other in (1, 2, 3) if other != axis + 1]
        assert (own - own.mean(dim=others, keepdim=True)).abs().max() < 1e-6
        assert own.diff(dim=axis + 1).abs().max() > 0.1
    assert positions[60:].abs().max() == 0


def test_place_and_type_of_the_mask_change_the_embedding() -> None:
    torch.manual_seed(0)
    transformer = MaskTransformer(num_types=3, mask_voxels=12)
    mask = torch.zeros(1, 3, 12, 12, 12)
    mask[:, 1, 1:4, 2:4, 5:9] = 1
    elsewhere, other_type = mask.roll(5, dims=3), mask.roll(1, dims=1)
    first, second, third = transformer(torch.cat([mask, elsewhere, other_type]))
    assert (first - second).abs().max() > 1e-4
    assert (first - third).abs().max() > 1e-4


def test_untrained_embeddings_already_tell_types_apart_and_not_places() -> None:
    """A mask is almost empty: the prompt would go unread if a few voxels changed the embedding by a hair."""
    torch.manual_seed(0)
    transformer = MaskTransformer(num_types=3, mask_voxels=12)
    mask = torch.zeros(1, 3, 12, 12, 12)
    mask[:, 0, 1:4, 2:4, 5:8] = 1
    places = [mask.roll((x, z), dims=(2, 4)) for x, z in ((0, 0), (4, 0), (0, 4), (6, 3))]
    masks = torch.cat([place.roll(kind, dims=1) for kind in range(3) for place in places])
    embeddings = F.normalize(transformer(masks).flatten(1), dim=1)
    cosine = (embeddings @ embeddings.T).view(3, 4, 3, 4)
    for first in range(3):
        assert cosine[first, :, first].min() > 0.9
        for second in range(first):
            assert cosine[first, :, second].max() < 0.9
