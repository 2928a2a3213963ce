"""Encoder and decoder of the VQGAN: residual 3-D convolutions, one resolution per width."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """SiLU and 3x3x3 convolution, twice, around a shortcut; without a norm, its last convolution starting at zero.

    A norm over space would make the code of a voxel depend on the size of the patch around it: a lesion would come out
    darker in a large patch than in the small ones the network was trained on. A norm over the channels of a voxel
    throws its intensity away and trains unreliably. Starting as the identity, the block needs neither (Zhang et al.
    2019, "Fixup initialization").
    """

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        """Build the block; the shortcut is a 1x1x1 convolution where the channels differ."""
        super().__init__()
        last = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(nn.SiLU(), nn.Conv3d(in_channels, out_channels, 3, padding=1), nn.SiLU(), last)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, features: Float[Tensor, "batch in_channels x y z"]) -> Float[Tensor, "batch out_channels x y z"]:
        """Return features of the same resolution."""
        shortcut: Tensor = self.shortcut(features)
        residual: Tensor = self.residual(features)
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
    layers += [nn.SiLU(), nn.Conv3d(widths[-1], latent_channels, 1)]
    return nn.Sequential(*layers)


def build_decoder(*, widths: Sequence[int], blocks_per_level: int, latent_channels: int) -> nn.Sequential:
    """Build the decoder: latent -> CT patch with one channel, the encoder in reverse."""
    layers: list[nn.Module] = [nn.Conv3d(latent_channels, widths[-1], 3, padding=1)]
    for level in reversed(range(len(widths))):
        layers += [
            ResidualBlock(in_channels=widths[level], out_channels=widths[level]) for _ in range(blocks_per_level)
        ]
        if level > 0:
            layers.append(Upsample(in_channels=widths[level], out_channels=widths[level - 1]))
    layers += [nn.SiLU(), nn.Conv3d(widths[0], 1, 3, padding=1)]
    return nn.Sequential(*layers)


BLOCKS = (ResidualBlock, Upsample)
"""Whose activations may be computed again in the backward pass."""
