"""The PromptGenBlock of the paper, in two forms: turns the prompt embedding into a feature map the decoder can read."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_GRID = 3
_CHANNELS_PER_GROUP = 8
_PROMPT_GAIN = 2.0
_CHANNELS_PER_WIDTH = 8
_LEAST_WIDTH = 4

PromptBlockKind = Literal["upsample", "components"]
"""See `build_prompt_block`."""


class UpsampledPromptBlock(nn.Module):
    """Projects the embedding onto a few channels of a small grid, upsamples them, and makes the prompt of them.

    How long the embedding is matters, so that what is added to it can say how much of something is asked for. A prompt
    that was dropped, of zeros, becomes what the biases make of it. Of the features only size and precision are read.
    """

    def __init__(self, *, channels: int, embedding_dimension: int) -> None:
        """Build the projection onto an eighth of the channels, and the convolution that makes all of them."""
        super().__init__()
        self.width = max(_LEAST_WIDTH, channels // _CHANNELS_PER_WIDTH)
        self.project = nn.Linear(embedding_dimension, self.width * _GRID**3)
        self.convolution = nn.Conv3d(self.width, channels, 3, padding=1)
        # of about unit variance from the first step on, and clearly different for different prompts
        nn.init.normal_(self.project.weight, std=_PROMPT_GAIN * embedding_dimension**-0.5)
        nn.init.normal_(self.convolution.weight, std=(self.width * 3**3) ** -0.5)

    def forward(
        self,
        features: Float[Tensor, "batch channel x y z"],
        embedding: Float[Tensor, "batch embedding 1 1 1"],
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return the prompt with the channels and the resolution of the features."""
        projected = F.silu(self.project(embedding.flatten(1))).view(-1, self.width, _GRID, _GRID, _GRID)
        projected = projected.contiguous(memory_format=torch.channels_last_3d)
        resized = F.interpolate(projected, size=features.shape[2:], mode="trilinear", align_corners=False)
        prompt: Tensor = self.convolution(resized)
        return prompt


class PromptGenBlock(nn.Module):
    """Mixes learned prompt components by weights that depend on the prompt and on the features at hand.

    After PromptIR (Potlapalli et al. 2023), section 3.2, with the prompt embedding as a second input of the
    weights.
    """

    def __init__(self, *, channels: int, embedding_dimension: int, num_components: int) -> None:
        """Build the components, the layer that weighs them, and the convolution that follows."""
        super().__init__()
        self.components = nn.Parameter(torch.randn(num_components, channels, _GRID, _GRID, _GRID))
        self.weigh = nn.Linear(embedding_dimension + channels, num_components)
        # different prompts start with clearly different mixtures, so that the prompt is read from the first step on
        nn.init.normal_(self.weigh.weight[:, :embedding_dimension], std=_PROMPT_GAIN)
        groups = max(1, channels // _CHANNELS_PER_GROUP)
        self.convolution = nn.Conv3d(channels, channels, 3, padding=1, groups=groups)

    def forward(
        self,
        features: Float[Tensor, "batch channel x y z"],
        embedding: Float[Tensor, "batch embedding 1 1 1"],
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return the prompt with the channels and the resolution of the features."""
        pooled = features.mean(dim=(2, 3, 4))
        direction = F.normalize(embedding.flatten(1).to(pooled.dtype), dim=1)
        weights = self.weigh(torch.cat([direction, pooled], dim=1)).softmax(dim=1)
        mixed = torch.einsum("bn,ncxyz->bcxyz", weights, self.components.to(weights.dtype))
        # a tenth of the time, and the order in which the convolution wants it
        mixed = mixed.contiguous(memory_format=torch.channels_last_3d)
        resized = F.interpolate(mixed, size=features.shape[2:], mode="trilinear", align_corners=False)
        prompt: Tensor = self.convolution(resized)
        return prompt


PROMPT_BLOCKS = (UpsampledPromptBlock, PromptGenBlock)
"""What `build_prompt_block` builds."""


def build_prompt_block(
    kind: PromptBlockKind, *, channels: int, embedding_dimension: int, num_components: int
) -> UpsampledPromptBlock | PromptGenBlock:
    """Build the block called `upsample`, what the paper's text describes, or `components`, after PromptIR."""
    if kind == "upsample":
        return UpsampledPromptBlock(channels=channels, embedding_dimension=embedding_dimension)
    return PromptGenBlock(channels=channels, embedding_dimension=embedding_dimension, num_components=num_components)
