"""The perceptual distance, on slices with ImageNet features and on patches with MedicalNet's."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.perceptual import PerceptualLoss, build_perceptual_loss, perceptual_identity
from promptlesion.features.imagenet import EfficientNetLite0, load_efficientnet_lite0
from promptlesion.features.medicalnet import MedicalNet
from promptlesion.training.atomic import file_hash

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def perceptual() -> PerceptualLoss:
    return PerceptualLoss(load_efficientnet_lite0((1, 2, 3)))


def test_the_perceptual_distance_of_equal_slices_is_zero(perceptual: PerceptualLoss) -> None:
    slices = torch.rand(3, 1, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert perceptual(slices, slices) == 0


def test_more_blur_is_further_away(perceptual: PerceptualLoss) -> None:
    slices = torch.rand(3, 1, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    little, much = (F.avg_pool2d(F.pad(slices, [width // 2] * 4, mode="reflect"), width, stride=1) for width in (3, 7))
    assert 0 < perceptual(little, slices) < perceptual(much, slices) < 4


def test_the_gradient_reaches_the_reconstruction_alone(perceptual: PerceptualLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    reconstruction = torch.rand(2, 1, 24, 32, generator=generator).requires_grad_()
    image = torch.rand(2, 1, 24, 32, generator=generator).requires_grad_()
    perceptual(reconstruction, image).backward()
    assert reconstruction.grad is not None
    assert reconstruction.grad.abs().sum() > 0
    assert image.grad is None
    assert all(parameter.grad is None for parameter in perceptual.parameters())


class Plain(nn.Module):
    """Gives back what it sees, with a second channel of ones to compare the first with."""

    def forward(self, seen: Tensor) -> list[Tensor]:
        return [torch.cat([seen, torch.ones_like(seen)], dim=1)]


def test_the_distance_by_hand() -> None:
    image, reconstruction = torch.full((1, 1, 2, 3, 4), 1.0), torch.full((1, 1, 2, 3, 4), -1.0)
    assert PerceptualLoss(Plain())(reconstruction, image).item() == pytest.approx(2.0)  # (1, 1) and (-1, 1) over sqrt 2


def test_both_sides_are_standardised_by_the_real_one() -> None:
    """So that neither scale nor offset of the pair matters, yet an offset between them does."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 5, 6, 7, generator=generator)
    reconstruction = image + 0.1
    loss = PerceptualLoss(Plain(), is_standardized=True)
    distance = loss(reconstruction, image)
    assert distance > 0
    torch.testing.assert_close(loss(3 * reconstruction - 4, 3 * image - 4), distance, rtol=1e-4, atol=0)
    flat = torch.full((1, 1, 5, 6, 7), 0.3)
    assert bool(torch.isfinite(loss(flat + 0.1, flat)))


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """A random MedicalNet ResNet-10 as the published files are written."""
    torch.manual_seed(0)
    state = {f"module.{name}": tensor for name, tensor in MedicalNet(10).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "resnet_10.pth")
    return tmp_path / "resnet_10.pth"


def test_the_configuration_chooses_the_network(weights_file: Path) -> None:
    assert build_perceptual_loss(AutoencoderConfig(perceptual_weight=0.0), CPU) is None
    slices = build_perceptual_loss(AutoencoderConfig(), CPU)
    assert slices is not None and isinstance(slices.features, EfficientNetLite0)
    assert perceptual_identity(AutoencoderConfig()) == {}
    config = AutoencoderConfig(perceptual_network="medicalnet", medicalnet_weights=str(weights_file))
    patches = build_perceptual_loss(config, CPU)
    assert patches is not None and isinstance(patches.features, MedicalNet) and patches.is_standardized
    assert perceptual_identity(config) == {"medicalnet weights": file_hash(weights_file)}


def test_medicalnet_sees_whole_patches(weights_file: Path) -> None:
    config = AutoencoderConfig(perceptual_network="medicalnet", medicalnet_weights=str(weights_file))
    loss = build_perceptual_loss(config, CPU)
    assert loss is not None
    patch = torch.rand(1, 1, 24, 32, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert loss(patch, patch) == 0
    blurred = F.avg_pool3d(F.pad(patch, [1] * 6, mode="replicate"), 3, stride=1).requires_grad_()
    distance = loss(blurred, patch)
    distance.backward()
    assert distance > 0
    assert blurred.grad is not None and bool(blurred.grad.abs().amax(dim=(0, 1)).min() > 0)
    assert all(parameter.grad is None for parameter in loss.parameters())


def test_a_missing_file_is_named() -> None:
    config = AutoencoderConfig(perceptual_network="medicalnet", medicalnet_weights="/nowhere/resnet_50.pth")
    with pytest.raises(ValueError, match=r"/nowhere/resnet_50\.pth: expected a weights file of MedicalNet"):
        perceptual_identity(config)
