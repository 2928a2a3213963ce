"""The denoising loss by hand."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from promptlesion.diffusion.loss import NoisedBatch, denoising_loss, min_snr_weights, noise_loss
from promptlesion.diffusion.schedule import NoiseSchedule, Prediction, linear_schedule, rectified_flow


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


PREDICTIONS: tuple[Prediction, ...] = ("noise", "v", "velocity")


def test_min_snr_weights_at_known_ratios() -> None:
    """SNR of 16, 4, 1 and 1/4, gamma = 5: the weights of Hang et al. 2023, up to the mean."""
    snr = torch.tensor([16.0, 4.0, 1.0, 0.25], dtype=torch.float64)
    schedule = NoiseSchedule.from_alpha_bar(snr / (1 + snr))
    counted = torch.tensor([5.0, 4.0, 1.0, 0.25], dtype=torch.float64)
    for prediction, expected in {"noise": counted / snr, "v": counted / (snr + 1)}.items():
        weights = min_snr_weights(schedule, prediction, gamma=5.0)
        torch.testing.assert_close(weights, expected / expected.mean())


def test_min_snr_weights_of_a_flow_count_its_time() -> None:
    time = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    expected = torch.tensor([5.0, 1.0, (0.25 / 0.75) ** 2, 0.0], dtype=torch.float64) * time**2
    weights = min_snr_weights(rectified_flow(num_levels=4), "velocity", gamma=5.0)
    torch.testing.assert_close(weights, expected / expected.mean())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weighed_by_min_snr_every_prediction_is_the_error_of_the_clean_latent(prediction: Prediction) -> None:
    """Of what is estimated from one noisy latent, the weights take out how the prediction is put."""
    schedule, gamma = linear_schedule(num_levels=30, beta_start=1e-3, beta_end=0.3), 3.0
    noisy, first, second = torch.randn(3, 1, 2, 4, 5, 3, dtype=torch.float64)
    weights, relative = min_snr_weights(schedule, prediction, gamma=gamma), []
    for level in (0, 9, 20, 29):
        clean = [schedule.split(noisy, predicted, level, prediction).clean for predicted in (first, second)]
        counted = min(gamma, (schedule.at(level).signal / schedule.at(level).noise) ** 2)
        of_clean = counted * (clean[0] - clean[1]).square().mean()
        relative.append(weights[level] * (first - second).square().mean() / of_clean)
    torch.testing.assert_close(torch.stack(relative), relative[0].expand(4))


def test_the_loss_weighs_every_sample_by_its_level() -> None:
    class Silent:
        schedule = linear_schedule(num_levels=30, beta_start=1e-3, beta_end=0.3)
        prediction: Prediction = "noise"

        def __call__(self, noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(noisy)

    clean, noise = torch.randn(2, 3, 2, 4, 5, 3)
    level = torch.tensor([2, 29, 11])
    batch = NoisedBatch(clean, level, noise, conditions=(), lesion_mask=torch.ones(3, 1, 4, 5, 3))
    loss = noise_loss(Silent(), batch, kind="mse", min_snr_gamma=5.0, precision="float32", device=torch.device("cpu"))
    weights = min_snr_weights(Silent.schedule, "noise", gamma=5.0)[level].float()
    torch.testing.assert_close(loss, (weights * noise.square().mean(dim=(1, 2, 3, 4))).mean())
