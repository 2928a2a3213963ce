"""The segmentation network: MONAI's residual 3-D U-Net."""

from monai.networks.nets.unet import UNet
from torch import nn

from promptlesion.segmentation.config import SegmentationConfig


def build_segmentation_network(config: SegmentationConfig, num_labels: int) -> nn.Module:
    """Build the U-Net of a configuration: a patch with one channel -> one score per label, background first.

    Every entry of `channels` is a resolution, each half of the one before. The norms are affine, and the
    activations leaky ReLUs: PReLU's backward pass takes a fifth of a training step on a CPU.

    Args:
        config: channels and residual units.
        num_labels: labels of the dataset, background included.
    """
    network: nn.Module = UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=num_labels,
        channels=config.channels,
        strides=[2] * (len(config.channels) - 1),
        num_res_units=config.residual_units,
        norm=("INSTANCE", {"affine": True}),
        act=("LEAKYRELU", {"negative_slope": 0.01, "inplace": True}),
    )
    return network
