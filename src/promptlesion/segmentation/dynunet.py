"""nnU-Net's architecture: MONAI's DynUNet, laid out from patch and spacing, supervised at several resolutions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn

_SMALLEST_EDGE = 4
"""No axis of the patch is halved below that many voxels."""
_WIDEST_CHANNELS = 320


@dataclass(frozen=True)
class Resolution:
    """One resolution of the network: how it comes out of the one before, and how it is convolved."""

    stride: tuple[int, int, int]
    kernel: tuple[int, int, int]


def plan_resolutions(patch_voxels: int, spacing_mm: tuple[float, float, float]) -> tuple[Resolution, ...]:
    """Lay out the resolutions of a cubic patch as nnU-Net does (Isensee et al. 2021, supplementary note 2).

    Axes are halved together while their voxels are within a factor of two of the smallest, so that coarse axes wait
    for the fine ones; an axis is convolved over three voxels from where its voxels come that close, over one before.
    An axis that would be halved alone needs half as much again. Unlike nnU-Net, which pads, an odd edge stays.
    """
    edge, voxel_mm = [patch_voxels] * 3, list(spacing_mm)
    stride, kernel = (1, 1, 1), [1, 1, 1]
    resolutions: list[Resolution] = []
    while True:
        kernel = [3 if length < 2 * min(voxel_mm) else old for old, length in zip(kernel, voxel_mm, strict=True)]
        room = [axis for axis in range(3) if edge[axis] >= 2 * _SMALLEST_EDGE and edge[axis] % 2 == 0]
        halved = [axis for axis in room if voxel_mm[axis] < 2 * min(voxel_mm[other] for other in room)]
        if not halved or (len(halved) == 1 and edge[halved[0]] < 3 * _SMALLEST_EDGE):
            return (*resolutions, Resolution(stride=stride, kernel=(3, 3, 3)))
        resolutions.append(Resolution(stride=stride, kernel=(kernel[0], kernel[1], kernel[2])))
        stride = (1 + (0 in halved), 1 + (1 in halved), 1 + (2 in halved))
        edge = [length // factor for length, factor in zip(edge, stride, strict=True)]
        voxel_mm = [length * factor for length, factor in zip(voxel_mm, stride, strict=True)]


def planned_channels(num_resolutions: int) -> tuple[int, ...]:
    """Return nnU-Net's channels: 32, doubled with every resolution up to 320."""
    return tuple(min(32 * 2**index, _WIDEST_CHANNELS) for index in range(num_resolutions))


class DeeplySupervisedUNet(nn.Module):
    """MONAI's DynUNet that, in training, scores the patch at falling resolutions: all but the two coarsest.

    The blocks and their order are the DynUNet's. Its own `forward` resizes every score to the full patch, and keeps
    the last ones in memory; here each stays at its resolution, as in nnU-Net.
    """

    def __init__(
        self, *, num_channels: int, num_labels: int, resolutions: Sequence[Resolution], channels: Sequence[int]
    ) -> None:
        """Build the blocks.

        Args:
            resolutions: from fine to coarse, three or more.
        """
        super().__init__()
        num_coarser = len(resolutions) - 3
        strides = [resolution.stride for resolution in resolutions]
        built = DynUNet(
            spatial_dims=3,
            in_channels=num_channels,
            out_channels=num_labels,
            kernel_size=[resolution.kernel for resolution in resolutions],
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=list(channels),
            deep_supervision=num_coarser > 0,
            deep_supr_num=max(num_coarser, 1),
        )
        self.descent = nn.ModuleList([built.input_block, *built.downsamples, built.bottleneck])
        self.ascent = built.upsamples
        self.scoring = nn.ModuleList([built.output_block, *(built.deep_supervision_heads if num_coarser > 0 else ())])

    def forward(
        self, image: Float[Tensor, "batch channel x y z"]
    ) -> Float[Tensor, "batch label x y z"] | list[Float[Tensor, "batch label _ _ _"]]:
        """Score every voxel; in training return the scores of each resolution, the finest first."""
        features, skips = image, []
        for block in self.descent:
            features = block(features)
            skips.append(features)
        ascended = []
        for block, skip in zip(self.ascent, reversed(skips[:-1]), strict=True):
            features = block(features, skip)
            ascended.append(features)
        if not self.training:
            finest: Tensor = self.scoring[0](features)
            return finest
        return [score(found) for score, found in zip(self.scoring, reversed(ascended), strict=False)]


def supervision_weights(num_resolutions: int) -> Float[Tensor, " resolution"]:
    """Return nnU-Net's weights of the losses, the finest resolution first: each half of the one before, 1 in all."""
    weights = 0.5 ** torch.arange(num_resolutions)
    return weights / weights.sum()
