"""A PromptGenBlock makes a prompt of the features' shape, out of the embedding and the features."""

import pytest
import torch

from promptlesion.diffusion.prompt_block import PromptGenBlock


@pytest.fixture
def block() -> PromptGenBlock:
    torch.manual_seed(0)
    return PromptGenBlock(channels=16, embedding_dimension=5, num_components=4)


@pytest.mark.parametrize("size", [(3, 3, 3), (6, 9, 7), (2, 5, 1)])
def test_the_prompt_has_the_features_shape(block: PromptGenBlock, size: tuple[int, int, int]) -> None:
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


def test_untrained_it_already_answers_different_prompts_differently(block: PromptGenBlock) -> None:
    """Of unit variance like the components; two prompts differ by as much as they vary."""
    features, embeddings = torch.randn(1, 16, 6, 6, 6), torch.eye(5).view(5, 5, 1, 1, 1)
    prompts = block(features.expand(5, -1, -1, -1, -1), embeddings)
    distances = torch.cdist(prompts.flatten(1), prompts.flatten(1)) + 1e9 * torch.eye(5)
    assert distances.min() > 0.1 * prompts.flatten(1).norm(dim=1).mean()


def test_the_length_of_an_embedding_does_not_matter(block: PromptGenBlock) -> None:
    features, embedding = torch.randn(1, 16, 4, 3, 5), torch.randn(1, 5, 1, 1, 1)
    torch.testing.assert_close(block(features, 7 * embedding), block(features, embedding))
