"""The denoising loss by hand."""

import pytest
import torch
import torch.nn.functional as F

from promptlesion.diffusion.loss import denoising_loss


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 2, 3, 4, 5, 6, generator=generator)
    mask = (torch.rand(2, 1, 4, 5, 6, generator=generator) > 0.9).float()
    return predicted, target, mask


def test_weight_one_is_the_plain_mean(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    predicted, target, mask = batch
    loss = denoising_loss(predicted, target, mask, lesion_weight=1.0)
    torch.testing.assert_close(loss, F.mse_loss(predicted, target))


def test_a_lesion_voxel_counts_as_often_as_its_weight(
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    predicted, target, mask = batch
    error = (predicted - target).square().movedim(1, -1)
    inside, outside = error[mask[:, 0] > 0], error[mask[:, 0] == 0]
    repeated = torch.cat([outside, *[inside] * 5])
    loss = denoising_loss(predicted, target, mask, lesion_weight=5.0)
    torch.testing.assert_close(loss, repeated.mean())


def test_a_perfect_prediction_costs_nothing(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    _, target, mask = batch
    assert denoising_loss(target, target, mask, lesion_weight=3.0) == 0
