"""The segmentation networks: MONAI's residual 3-D U-Net, and nnU-Net's architecture."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from monai.networks.blocks.convolutions import Convolution, ResidualUnit
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetUpBlock
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from promptlesion.data.intensity import HUWindow
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.dynunet import DeeplySupervisedUNet, plan_resolutions, planned_channels


def build_segmentation_network(
    config: SegmentationConfig,
    num_labels: int,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    window_hu: tuple[float, float] = (-1000.0, 1000.0),
) -> nn.Module:
    """Build the network of a configuration: a patch with one channel -> one score per label, background first.

    Args:
        config: which network, its patch and its channels. For `nnunetv2`, which plans its own, the answer is the
            architecture it would plan for that patch: good for an estimate.
        num_labels: labels of the dataset, background included.
        spacing_mm: of the patches; nnU-Net's architecture depends on its proportions.
        window_hu: what the patches were normalised with; `extra_windows_hu` are seen through it.

    Raises:
        ValueError: more channels than nnU-Net's architecture has resolutions for such a patch.
    """
    num_channels = 1 + len(config.extra_windows_hu)
    if config.network == "unet":
        network = _unet(config, num_channels, num_labels)
    else:
        network = _dynunet(config, num_channels, num_labels, spacing_mm)
    if not config.extra_windows_hu:
        return network
    return WindowedNetwork(network, window=HUWindow(*window_hu), extra=[HUWindow(*w) for w in config.extra_windows_hu])


class WindowedNetwork(nn.Module):
    """Shows a network the patch through further HU windows, each a channel of its own."""

    def __init__(self, network: nn.Module, *, window: HUWindow, extra: Sequence[HUWindow]) -> None:
        """Wrap a network of 1 + `extra` input channels; `window` is what the patches were normalised with."""
        super().__init__()
        self.network = network
        self._window, self._extra = window, tuple(extra)

    def forward(self, patch: Float[Tensor, "batch 1 x y z"]) -> Tensor | tuple[Tensor, ...]:
        """Return what the network makes of the channels."""
        hu = self._window.to_hu(patch)
        scores: Tensor = self.network(torch.cat([patch, *(window.normalize(hu) for window in self._extra)], dim=1))
        return scores


def _unet(config: SegmentationConfig, num_channels: int, num_labels: int) -> nn.Module:
    """Build the U-Net, each resolution half of the one before.

    The norms are affine, and the activations leaky ReLUs: PReLU's backward pass takes a fifth of a training step on a
    CPU.
    """
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=num_channels,
        out_channels=num_labels,
        channels=config.unet_channels,
        strides=[2] * (len(config.unet_channels) - 1),
        num_res_units=config.residual_units,
        norm=("INSTANCE", {"affine": True}),
        act=("LEAKYRELU", {"negative_slope": 0.01, "inplace": True}),
    )
    return network


def _dynunet(
    config: SegmentationConfig, num_channels: int, num_labels: int, spacing_mm: tuple[float, float, float]
) -> nn.Module:
    planned = plan_resolutions(config.patch_voxels, spacing_mm)
    channels = config.channels or planned_channels(len(planned))
    if len(channels) > len(planned):
        raise ValueError(
            f"segmentation.channels: expected at most {len(planned)}, as many as a patch of {config.patch_voxels} "
            f"voxels of {' x '.join(f'{length:g}' for length in spacing_mm)} mm has resolutions; found {len(channels)}"
        )
    return DeeplySupervisedUNet(
        num_channels=num_channels, num_labels=num_labels, resolutions=planned[: len(channels)], channels=channels
    )


BLOCKS = (ResidualUnit, Convolution, UnetBasicBlock, UnetUpBlock)
"""Whose activations may be computed again in the backward pass."""
