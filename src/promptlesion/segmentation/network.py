"""The segmentation networks: MONAI's residual 3-D U-Net, and nnU-Net's architecture."""

from monai.networks.nets.unet import UNet
from torch import nn

from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.dynunet import DeeplySupervisedUNet, plan_resolutions, planned_channels


def build_segmentation_network(
    config: SegmentationConfig, num_labels: int, *, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> nn.Module:
    """Build the network of a configuration: a patch with one channel -> one score per label, background first.

    Args:
        config: which network, its patch and its channels. For `nnunetv2`, which plans its own, the answer is the
            architecture it would plan for that patch: good for an estimate.
        num_labels: labels of the dataset, background included.
        spacing_mm: of the patches; nnU-Net's architecture depends on its proportions.

    Raises:
        ValueError: more channels than nnU-Net's architecture has resolutions for such a patch.
    """
    return _unet(config, num_labels) if config.network == "unet" else _dynunet(config, num_labels, spacing_mm)


def _unet(config: SegmentationConfig, num_labels: int) -> nn.Module:
    """Build the U-Net, each resolution half of the one before.

    The norms are affine, and the activations leaky ReLUs: PReLU's backward pass takes a fifth of a training step on a
    CPU.
    """
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=num_labels,
        channels=config.unet_channels,
        strides=[2] * (len(config.unet_channels) - 1),
        num_res_units=config.residual_units,
        norm=("INSTANCE", {"affine": True}),
        act=("LEAKYRELU", {"negative_slope": 0.01, "inplace": True}),
    )
    return network


def _dynunet(config: SegmentationConfig, num_labels: int, spacing_mm: tuple[float, float, float]) -> nn.Module:
    planned = plan_resolutions(config.patch_voxels, spacing_mm)
    channels = config.channels or planned_channels(len(planned))
    if len(channels) > len(planned):
        raise ValueError(
            f"segmentation.channels: expected at most {len(planned)}, as many as a patch of {config.patch_voxels} "
            f"voxels of {' x '.join(f'{length:g}' for length in spacing_mm)} mm has resolutions; found {len(channels)}"
        )
    return DeeplySupervisedUNet(num_labels=num_labels, resolutions=planned[: len(channels)], channels=channels)
