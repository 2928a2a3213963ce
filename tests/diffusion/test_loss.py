"""The denoising loss by hand."""

from typing import Literal

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


KINDS: tuple[Literal["mse", "l1"], ...] = ("mse", "l1")


@pytest.mark.parametrize("kind", KINDS)
def test_weight_one_is_the_plain_mean(
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], kind: Literal["mse", "l1"]
) -> None:
    predicted, target, mask = batch
    loss = denoising_loss(predicted, target, mask, lesion_weight=1.0, kind=kind)
    torch.testing.assert_close(loss, {"mse": F.mse_loss, "l1": F.l1_loss}[kind](predicted, target))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_voxel_counts_as_often_as_its_weight(
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor], kind: Literal["mse", "l1"]
) -> None:
    predicted, target, mask = batch
    error = (predicted - target).abs().pow(2 if kind == "mse" else 1).movedim(1, -1)
    inside, outside = error[mask[:, 0] > 0], error[mask[:, 0] == 0]
    repeated = torch.cat([outside, *[inside] * 5])
    loss = denoising_loss(predicted, target, mask, lesion_weight=5.0, kind=kind)
    torch.testing.assert_close(loss, repeated.mean())


def test_a_perfect_prediction_costs_nothing(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    _, target, mask = batch
    assert denoising_loss(target, target, mask, lesion_weight=3.0, kind="mse") == 0
