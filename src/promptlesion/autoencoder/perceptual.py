"""The perceptual loss: distance of what a network trained on something else sees in scan and reconstruction."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.features.imagenet import load_efficientnet_lite0
from promptlesion.features.medicalnet import load_medicalnet
from promptlesion.training.atomic import file_hash
from promptlesion.training.device import place

_IMAGENET_STAGES = (1, 2, 3, 4)


class PerceptualLoss(nn.Module):
    """Distance of unit-normalised features (Zhang et al. 2018, without learned weights)."""

    def __init__(self, features: nn.Module, *, is_standardized: bool = False) -> None:
        """Take a frozen network that returns feature maps of one-channel slices or patches.

        Args:
            features: the network.
            is_standardized: whether it expects mean 0 and variance 1 rather than [-1, 1]. Both sides are then shifted
                and scaled by mean and deviation of the real one, so that an error in brightness stays one.
        """
        super().__init__()
        self.features = features
        self.is_standardized = is_standardized

    def forward(
        self, reconstruction: Float[Tensor, "item 1 *space"], image: Float[Tensor, "item 1 *space"]
    ) -> Float[Tensor, ""]:
        """Return the mean over feature maps of the squared distance between unit feature vectors."""
        with torch.no_grad():
            if self.is_standardized:
                mean, deviation = _moments(image)
                image = (image - mean) / deviation
            targets: Sequence[Tensor] = self.features(image)
        if self.is_standardized:
            reconstruction = (reconstruction - mean) / deviation
        found: Sequence[Tensor] = self.features(reconstruction)
        distances = [
            (F.normalize(a.float(), dim=1, eps=1e-6) - F.normalize(b.float(), dim=1, eps=1e-6))
            .square()
            .sum(dim=1)
            .mean()
            for a, b in zip(found, targets, strict=True)
        ]
        return torch.stack(distances).mean()


def build_perceptual_loss(config: AutoencoderConfig, device: torch.device) -> PerceptualLoss | None:
    """Build the loss a configuration asks for; none where its weight is 0."""
    if config.perceptual_weight == 0:
        return None
    if config.medicalnet_weights is not None:
        return place(PerceptualLoss(load_medicalnet(Path(config.medicalnet_weights)), is_standardized=True), device)
    return place(PerceptualLoss(load_efficientnet_lite0(_IMAGENET_STAGES)), device)


def perceptual_identity(config: AutoencoderConfig) -> dict[str, str]:
    """Return the hash of the user's weights file, for the run's record and card; nothing without such a file.

    Raises:
        ValueError: the file is not there.
    """
    if config.perceptual_network != "medicalnet" or config.medicalnet_weights is None:
        return {}
    path = Path(config.medicalnet_weights)
    if not path.is_file():
        raise ValueError(f"{path}: expected a weights file of MedicalNet, as resnet_50.pth; found none")
    return {"medicalnet weights": file_hash(path)}


def _moments(image: Float[Tensor, "item 1 *space"]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every item; a flat one keeps its scale."""
    axes = tuple(range(1, image.ndim))
    deviation = image.std(dim=axes, keepdim=True)
    return image.mean(dim=axes, keepdim=True), torch.where(deviation > 1e-3, deviation, torch.ones_like(deviation))
