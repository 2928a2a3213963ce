"""A prompt block makes a prompt of the features' shape, out of the embedding and, mixing components, the features."""

import pytest
import torch
from torch import nn

from promptlesion.diffusion.prompt_block import PromptGenBlock, UpsampledPromptBlock


@pytest.fixture
def block() -> PromptGenBlock:
    torch.manual_seed(0)
    return PromptGenBlock(channels=16, embedding_dimension=5, num_components=4)


@pytest.fixture
def upsampling() -> UpsampledPromptBlock:
    torch.manual_seed(0)
    return UpsampledPromptBlock(channels=16, embedding_dimension=5)


@pytest.mark.parametrize("size", [(3, 3, 3), (6, 9, 7), (2, 5, 1)])
@pytest.mark.parametrize("name", ["block", "upsampling"])
def test_the_prompt_has_the_features_shape(
    name: str, size: tuple[int, int, int], request: pytest.FixtureRequest
) -> None:
    block = request.getfixturevalue(name)
    assert block(torch.randn(2, 16, *size), torch.randn(2, 5, 1, 1, 1)).shape == (2, 16, *size)


def test_embedding_and_features_both_matter(block: PromptGenBlock) -> None:
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    prompt = block(features, embedding)
    assert (block(features, -embedding) - prompt).abs().max() > 1e-3
    assert (block(features + 1, embedding) - prompt).abs().max() > 1e-3


def test_where_a_feature_lies_does_not_matter(block: PromptGenBlock) -> None:
    """The features are pooled: their mean alone enters."""
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    torch.testing.assert_close(block(features.flip(2, 4), embedding), block(features, embedding))


def test_a_decided_weighing_gives_that_component_alone(block: PromptGenBlock) -> None:
    with torch.no_grad():
        block.weigh.weight.zero_()
        block.weigh.bias.copy_(torch.tensor([0.0, 0.0, 100.0, 0.0]))
    prompt = block(torch.randn(1, 16, 3, 3, 3), torch.randn(1, 5, 1, 1, 1))
    torch.testing.assert_close(prompt, block.convolution(block.components[2:3]))


@pytest.mark.parametrize("name", ["block", "upsampling"])
def test_untrained_it_already_answers_different_prompts_differently(name: str, request: pytest.FixtureRequest) -> None:
    """Of unit variance like the components; two prompts differ by as much as they vary."""
    block = request.getfixturevalue(name)
    features, embeddings = torch.randn(1, 16, 6, 6, 6), torch.eye(5).view(5, 5, 1, 1, 1)
    prompts = block(features.expand(5, -1, -1, -1, -1), embeddings)
    distances = torch.cdist(prompts.flatten(1), prompts.flatten(1)) + 1e9 * torch.eye(5)
    assert distances.min() > 0.1 * prompts.flatten(1).norm(dim=1).mean()


def test_the_length_of_an_embedding_does_not_matter(block: PromptGenBlock) -> None:
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    torch.testing.assert_close(block(features, 7 * embedding), block(features, embedding))


def test_upsampled_the_length_of_an_embedding_matters(upsampling: UpsampledPromptBlock) -> None:
    """Without a bound: the longer, the further from the prompt that says nothing."""
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    nothing = upsampling(features, torch.zeros_like(embedding))
    lengths = [
        float((upsampling(features, scale * embedding) - nothing).detach().norm()) for scale in (0.5, 1.0, 2.0, 8.0)
    ]
    assert lengths == sorted(lengths)
    assert lengths[-1] > 6 * lengths[1]


def test_upsampled_a_dropped_prompt_is_what_the_biases_make_of_it(upsampling: UpsampledPromptBlock) -> None:
    with torch.no_grad():
        upsampling.project.bias.fill_(2.0)
        nn.init.zeros_(upsampling.convolution.bias)
    prompt = upsampling(torch.randn(2, 16, 5, 4, 6), torch.zeros(2, 5, 1, 1, 1))
    inside = upsampling.convolution.weight.sum((1, 2, 3, 4)) * torch.nn.functional.silu(torch.tensor(2.0))
    torch.testing.assert_close(prompt[:, :, 1:-1, 1:-1, 1:-1], inside.view(1, -1, 1, 1, 1).expand(2, -1, 3, 2, 4))


def test_upsampled_the_features_say_the_size_alone(upsampling: UpsampledPromptBlock) -> None:
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    assert torch.equal(upsampling(features, embedding), upsampling(features + 1, embedding))


def test_upsampled_the_prompt_varies_over_its_grid(upsampling: UpsampledPromptBlock) -> None:
    prompt = upsampling(torch.randn(1, 16, 12, 9, 15), torch.randn(1, 5, 1, 1, 1))
    inside = prompt[:, :, 1:-1, 1:-1, 1:-1]
    assert inside.std(dim=(2, 3, 4)).min() > 0.1
