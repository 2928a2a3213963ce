"""MedicalNet's 3-D ResNets (Chen et al. 2019, Med3D) from the user's own weights file; nothing is downloaded.

MedicalNet publishes `resnet_10.pth`, `resnet_18.pth`, `resnet_34.pth` and `resnet_50.pth`, also as `…_23dataset.pth`.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets.resnet import ResNetFeatures
from torch import Tensor

from promptlesion.training.checkpoint import load_weights

_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((1, 1, 1, 1), False): 10,
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
}
"""By the number of blocks in each of the four layers, and whether they are bottlenecks."""


class MedicalNet(ResNetFeatures):  # type: ignore[misc]
    """The network without a head; `forward` gives the feature maps of its stem and of its four layers.

    It always stays in evaluation mode, also inside a module that is set to training.
    """

    def __init__(self, depth: int) -> None:
        """Build it with random weights, with the shortcuts that the published weights of that depth have."""
        super().__init__(f"resnet{depth}", pretrained=False, spatial_dims=3, in_channels=1)
        self.eval()

    def train(self, mode: bool = True) -> "MedicalNet":
        """Stay in evaluation mode: the batch statistics are those of the weights, whatever the outer module does."""
        super().train(False)
        return self

    def forward(self, inputs: Float[Tensor, "batch 1 x y z"]) -> Sequence[Float[Tensor, "batch _ _ _ _"]]:
        """Give the five feature maps of volumes with mean 0 and variance 1. Gradients reach `inputs`."""
        maps: list[Tensor] = super().forward(inputs)
        return maps

    def _downsample_basic_block(
        self, x: Float[Tensor, "batch channel x y z"], planes: int, stride: int, spatial_dims: int = 3
    ) -> Float[Tensor, "batch planes _ _ _"]:
        """Take every other voxel and fill up with empty channels; MONAI's own lets no gradient through here."""
        taken = F.avg_pool3d(x, kernel_size=1, stride=stride)
        return F.pad(taken, [0, 0, 0, 0, 0, 0, 0, planes - taken.shape[1]])


def load_medicalnet(path: Path) -> MedicalNet:
    """Load a file of MedicalNet's, its depth read from the weights, in evaluation mode, its weights frozen.

    Raises:
        ValueError: the file is missing, is no file of weights, or holds those of another network.
    """
    weights = _read(path)
    blocks = tuple(_num_blocks(weights, layer) for layer in range(1, 5))
    has_bottlenecks = "layer1.0.conv3.weight" in weights
    depth = _DEPTHS.get((blocks, has_bottlenecks))
    if depth is None:
        raise ValueError(
            f"{path}: expected a MedicalNet ResNet-10, -18, -34 or -50, blocks 1 1 1 1, 2 2 2 2 or 3 4 6 3; "
            f"found {' '.join(map(str, blocks))}{' bottlenecks' if has_bottlenecks else ''}"
        )
    network = MedicalNet(depth)
    # heads of fine-tuned networks are not wanted; files from before torch 0.4.1 count no batches
    wanted = {
        name: weights.get(name, tensor) if name.endswith("num_batches_tracked") else weights.get(name)
        for name, tensor in network.state_dict().items()
    }
    load_weights(network, {name: tensor for name, tensor in wanted.items() if tensor is not None}, source=path)
    network.requires_grad_(requires_grad=False)
    return network


def _read(path: Path) -> dict[str, Tensor]:
    """Read the file's state dictionary, the prefix of a network trained on several GPUs taken off."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a weights file of MedicalNet, as resnet_50.pth; found none")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: expected a file of weights alone, written by torch.save; found {reason}") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ValueError(f"{path}: expected a dictionary of tensors, or one in `state_dict`; found {type(content)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}


def _num_blocks(weights: dict[str, Tensor], layer: int) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith(f"layer{layer}.")})
