"""PromptGenBlock: turns the prompt embedding into a feature map the decoder can read."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_GRID = 3
_CHANNELS_PER_GROUP = 8
_PROMPT_GAIN = 2.0


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
