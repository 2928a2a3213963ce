"""The MaskTransformer of the paper's Table 1: 136 thousand parameters for five lesion types."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_PATCHES_PER_AXIS = 3
_DIMENSION, _NUM_BLOCKS, _QUERY_HEADS, _FEED_FORWARD = 64, 3, 4, 256
"""d_model, L, H and FF of Table 1."""
_POSITION_AMPLITUDE = 0.1


class PatchEmbedding(nn.Module):
    """Depthwise-separable patch convolution without bias, plus fixed sinusoidal positions."""

    positions: Tensor

    def __init__(self, *, num_types: int, patch_voxels: int, dimension: int) -> None:
        """Build both convolutions; the mask is cut into 3 x 3 x 3 patches."""
        super().__init__()
        self.depthwise = nn.Conv3d(
            num_types, num_types, patch_voxels, stride=patch_voxels, groups=num_types, bias=False
        )
        self.pointwise = nn.Conv3d(num_types, dimension, 1, bias=False)
        # A mask is almost empty: with torch's defaults the few lesion voxels change the embedding by 1 % of its norm,
        # and the prompt goes unread. So a token starts as its number of lesion voxels times its type's own direction.
        nn.init.normal_(self.depthwise.weight, mean=1.0, std=0.1)
        nn.init.normal_(self.pointwise.weight)
        positions = _POSITION_AMPLITUDE * sinusoidal_positions(_PATCHES_PER_AXIS, dimension)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, masks: Float[Tensor, "batch type x y z"]) -> Float[Tensor, "batch dimension 3 3 3"]:
        """Return one embedded token per patch."""
        tokens: Tensor = self.pointwise(self.depthwise(masks))
        return tokens + self.positions


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward, no biases; key/value heads may be fewer than query heads."""

    def __init__(self, *, dimension: int, query_heads: int, key_value_heads: int, feed_forward: int) -> None:
        """Build the projections; the norms have no parameters."""
        super().__init__()
        if query_heads % key_value_heads:
            raise ValueError(f"key_value_heads: expected a divisor of {query_heads}; found {key_value_heads}")
        self.query_heads, self.key_value_heads = query_heads, key_value_heads
        self.head_dimension = dimension // query_heads
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, key_value_heads * self.head_dimension, bias=False)
        self.value = nn.Linear(dimension, key_value_heads * self.head_dimension, bias=False)
        self.output = nn.Linear(dimension, dimension, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(dimension, feed_forward, bias=False), nn.GELU(), nn.Linear(feed_forward, dimension, bias=False)
        )
        self.norm = nn.LayerNorm(dimension, elementwise_affine=False)

    def forward(self, tokens: Float[Tensor, "token batch dimension"]) -> Float[Tensor, "token batch dimension"]:
        """Return the tokens after attention and feed-forward."""
        tokens = tokens + self._attend(self.norm(tokens))
        update: Tensor = self.feed_forward(self.norm(tokens))
        return tokens + update

    def _attend(self, tokens: Float[Tensor, "token batch dimension"]) -> Float[Tensor, "token batch dimension"]:
        query = self._split(self.query(tokens), self.query_heads)
        repeats = self.query_heads // self.key_value_heads
        key = self._split(self.key(tokens), self.key_value_heads).repeat_interleave(repeats, dim=1)
        value = self._split(self.value(tokens), self.key_value_heads).repeat_interleave(repeats, dim=1)
        attended = F.scaled_dot_product_attention(query, key, value)
        merged: Tensor = self.output(attended.permute(2, 0, 1, 3).flatten(2))
        return merged

    def _split(
        self, projected: Float[Tensor, "token batch width"], heads: int
    ) -> Float[Tensor, "batch heads token head"]:
        tokens, batch, _ = projected.shape
        return projected.view(tokens, batch, heads, self.head_dimension).permute(1, 2, 0, 3)


class MaskTransformer(nn.Module):
    """Reads a mask with one channel per lesion type; L = 3, d_model = 64, H = 4, FF = 256 (Table 1)."""

    def __init__(self, *, num_types: int, mask_voxels: int = 24, key_value_heads: int = 1) -> None:
        """Build the layers of Table 1.

        Args:
            num_types: lesion types, the channels of the mask.
            mask_voxels: edge of the cubic mask; a patch is a third of it.
            key_value_heads: 1 reproduces the table's parameter counts, 4 is standard attention.

        Raises:
            ValueError: `mask_voxels` is not divisible by three.
        """
        super().__init__()
        if mask_voxels % _PATCHES_PER_AXIS:
            raise ValueError(f"mask_voxels: expected a multiple of {_PATCHES_PER_AXIS}; found {mask_voxels}")
        self.dimension = _DIMENSION
        self.embedding = PatchEmbedding(
            num_types=num_types, patch_voxels=mask_voxels // _PATCHES_PER_AXIS, dimension=_DIMENSION
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dimension=_DIMENSION,
                query_heads=_QUERY_HEADS,
                key_value_heads=key_value_heads,
                feed_forward=_FEED_FORWARD,
            )
            for _ in range(_NUM_BLOCKS)
        )
        self.head = nn.Sequential(nn.LayerNorm(_DIMENSION), nn.Linear(_DIMENSION, _DIMENSION))

    def forward(self, masks: Float[Tensor, "batch type x y z"]) -> Float[Tensor, "batch dimension 1 1 1"]:
        """Return the prompt embedding e."""
        tokens: Tensor = self.embedding(masks)
        tokens = tokens.flatten(2).permute(2, 0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        embedding: Tensor = self.head(tokens.mean(dim=0))
        return embedding[:, :, None, None, None]


def sinusoidal_positions(patches_per_axis: int, dimension: int) -> Float[Tensor, "1 dimension u v w"]:
    """Return fixed 3-D positions: a third of the channels, in pairs, for each axis; the rest is zero."""
    per_axis = dimension // 6 * 2
    frequency = torch.exp(-math.log(100.0) * torch.arange(0, per_axis, 2) / per_axis)
    angle = torch.arange(patches_per_axis)[:, None] * frequency
    along = torch.cat([angle.sin(), angle.cos()], dim=1).t()
    n = patches_per_axis
    positions = torch.zeros(1, dimension, n, n, n)
    positions[0, :per_axis] = along.view(per_axis, n, 1, 1)
    positions[0, per_axis : 2 * per_axis] = along.view(per_axis, 1, n, 1)
    positions[0, 2 * per_axis : 3 * per_axis] = along.view(per_axis, 1, 1, n)
    return positions
