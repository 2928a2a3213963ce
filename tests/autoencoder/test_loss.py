"""The reconstruction losses by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from promptlesion.autoencoder.loss import PerceptualLoss, weighted_l1
from promptlesion.training.imagenet import load_efficientnet_lite0


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    reconstruction, image = torch.randn(2, 2, 1, 5, 7, 6, generator=generator)
    return reconstruction, image, torch.rand(image.shape, generator=generator) > 0.97


def test_a_lesion_voxel_counts_as_often_as_its_weight(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    reconstruction, image, mask = batch
    error = (reconstruction - image).abs()
    repeated = torch.cat([error[~mask], *[error[mask]] * 20])
    torch.testing.assert_close(weighted_l1(reconstruction, image, mask, lesion_weight=20.0), repeated.mean())


def test_without_weight_or_lesion_it_is_the_plain_l1(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    reconstruction, image, mask = batch
    plain = F.l1_loss(reconstruction, image)
    torch.testing.assert_close(weighted_l1(reconstruction, image, mask, lesion_weight=1.0), plain)
    nothing = torch.zeros_like(mask)
    torch.testing.assert_close(weighted_l1(reconstruction, image, nothing, lesion_weight=20.0), plain)


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
