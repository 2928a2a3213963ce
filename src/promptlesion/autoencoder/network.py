"""Encoder and decoder of the VQGAN: residual 3-D convolutions, one resolution per width."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel.

    Unlike a group norm it takes no statistics over space: a voxel is encoded and decoded alike in a patch of any
    size, and a lesion is as bright in a large patch as in the small ones the network was trained on.
    """

    def __init__(self, channels: int) -> None:
        """Build the norm with a learned scale and shift per channel."""
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, features: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x y z"]:
        """Return the features with zero mean and unit variance over the channels of each voxel."""
        normalized: Tensor = self.norm(features.movedim(1, -1))
        return normalized.movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Norm, SiLU and 3x3x3 convolution, twice, around a shortcut."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        """Build the block; the shortcut is a 1x1x1 convolution where the channels differ."""
        super().__init__()
        self.first = nn.Sequential(
            ChannelNorm(in_channels), nn.SiLU(), nn.Conv3d(in_channels, out_channels, 3, padding=1)
        )
        self.second = nn.Sequential(
            ChannelNorm(out_channels), nn.SiLU(), nn.Conv3d(out_channels, out_channels, 3, padding=1)
        )
        self.shortcut = (
            nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)
        )

    def forward(
        self, features: Float[Tensor, "batch in_channels x y z"]
    ) -> Float[Tensor, "batch out_channels x y z"]:
        """Return features of the same resolution."""
        residual: Tensor = self.second(self.first(features))
        shortcut: Tensor = self.shortcut(features)
        return shortcut + residual


class Upsample(nn.Module):
    """Doubles the resolution: nearest neighbour, then a convolution."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        """Build the convolution that follows the enlargement."""
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "batch in_channels x y z"]
    ) -> Float[Tensor, "batch out_channels x2 y2 z2"]:
        """Return features of twice the resolution."""
        enlarged: Tensor = self.convolution(F.interpolate(features, scale_factor=2.0, mode="nearest"))
        return enlarged


def build_encoder(*, widths: Sequence[int], blocks_per_level: int, latent_channels: int) -> nn.Sequential:
    """Build the encoder: one-channel CT patch -> latent, halved in size for every width after the first."""
    layers: list[nn.Module] = [nn.Conv3d(1, widths[0], 3, padding=1)]
    for level, width in enumerate(widths):
        if level > 0:
            layers.append(nn.Conv3d(widths[level - 1], width, 4, stride=2, padding=1))
        layers += [ResidualBlock(in_channels=width, out_channels=width) for _ in range(blocks_per_level)]
    layers += [ChannelNorm(widths[-1]), nn.SiLU(), nn.Conv3d(widths[-1], latent_channels, 1)]
    return nn.Sequential(*layers)


def build_decoder(*, widths: Sequence[int], blocks_per_level: int, latent_channels: int) -> nn.Sequential:
    """Build the decoder: latent -> CT patch with one channel, the encoder in reverse."""
    layers: list[nn.Module] = [nn.Conv3d(latent_channels, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += [
            ResidualBlock(in_channels=widths[level], out_channels=widths[level])
            for _ in range(blocks_per_level)
        ]
        if level > 0:
            layers.append(Upsample(in_channels=widths[level], out_channels=widths[level - 1]))
    layers += [ChannelNorm(widths[0]), nn.SiLU(), nn.Conv3d(widths[0], 1, 3, padding=1)]
    return nn.Sequential(*layers)
