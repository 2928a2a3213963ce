"""The noise schedule against numpy and the paper's figures."""

from typing import get_args

import numpy as np
import pytest
import torch

from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.schedule import (
    Prediction,
    build_schedule,
    cosine_schedule,
    linear_schedule,
    rectified_flow,
)


def test_alpha_bar_is_the_product_of_one_minus_beta() -> None:
    schedule = linear_schedule(num_levels=37, beta_start=1e-3, beta_end=0.3)
    expected = np.cumprod(1 - np.linspace(1e-3, 0.3, 37))
    np.testing.assert_allclose(schedule.signal.square().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(schedule.noise.square().numpy(), 1 - expected, rtol=1e-12)
    assert schedule.num_levels == 37


def test_the_papers_schedule_leaves_a_trace_and_the_rescaled_one_does_not() -> None:
    paper = build_schedule(DiffusionConfig())
    assert paper.num_levels == 400
    assert paper.at(-1).signal ** 2 == pytest.approx(0.0175, abs=2e-4)
    rescaled = build_schedule(DiffusionConfig(rescale_betas=True))
    assert rescaled.at(-1).signal ** 2 == pytest.approx(4e-5, rel=0.15)


def test_the_cosine_schedule_is_nichol_and_dhariwals() -> None:
    """Equation 17: alpha_bar is f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), up to the capped betas."""
    schedule = build_schedule(DiffusionConfig(schedule="cosine", num_levels=250))
    signal = np.cos((np.arange(251) / 250 + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha_bar = schedule.signal.square()
    np.testing.assert_allclose(alpha_bar[:-1].numpy(), signal[1:-1] / signal[0], rtol=1e-9)
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    assert float(betas[-1]) == pytest.approx(0.999)
    assert bool((betas.diff() > -1e-12).all())
    assert torch.equal(schedule.signal, cosine_schedule(num_levels=250, offset=0.008).signal)


def test_rescaling_a_thousand_levels_changes_nothing() -> None:
    plain = build_schedule(DiffusionConfig(num_levels=1000))
    rescaled = build_schedule(DiffusionConfig(num_levels=1000, rescale_betas=True))
    assert torch.equal(plain.signal, rescaled.signal)


def test_signal_falls_and_stays_positive_even_for_very_few_levels() -> None:
    for num_levels in (2, 5, 20, 400):
        signal = build_schedule(DiffusionConfig(num_levels=num_levels, rescale_betas=True)).signal
        assert bool((signal.diff() < 0).all())
        assert 0 < float(signal[-1]) < float(signal[0]) < 1


def test_signal_and_noise_are_a_point_on_the_unit_circle() -> None:
    schedule = build_schedule(DiffusionConfig())
    level = torch.tensor([0, 17, 399])
    signal, sigma = schedule.signal_and_noise(level, torch.zeros(3, 2, 3, 4, 5))
    assert signal.shape == sigma.shape == (3, 1, 1, 1, 1)
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(3, 1, 1, 1, 1))
    torch.testing.assert_close(signal.flatten().double(), schedule.signal[level], rtol=1e-6, atol=0)


def test_noisy_data_have_the_mean_and_the_variance_of_equation_4() -> None:
    schedule = build_schedule(DiffusionConfig())
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([3, 120, 390])
    clean = torch.full((3, 8, 24, 20, 28), 2.0)
    noisy = schedule.add_noise(clean, torch.randn(clean.shape, generator=generator), level).double()
    alpha_bar = schedule.signal[level].square()
    standard_error = ((1 - alpha_bar) / clean[0].numel()).sqrt()
    assert bool(((noisy.mean(dim=(1, 2, 3, 4)) - 2 * alpha_bar.sqrt()).abs() < 4 * standard_error).all())
    torch.testing.assert_close(noisy.var(dim=(1, 2, 3, 4)), 1 - alpha_bar, rtol=0.02, atol=0)


def test_spaced_levels_are_distinct_descend_and_reach_both_ends() -> None:
    schedule = linear_schedule(num_levels=101, beta_start=1e-4, beta_end=2e-2)
    for num_steps in range(2, 102):
        levels = schedule.spaced_levels(num_steps)
        assert len(levels) == num_steps
        assert levels[0] == 100
        assert levels[-1] == 0
        strides = -np.diff(levels)
        assert strides.min() >= 1
        assert np.ptp(strides) <= 1
    assert schedule.spaced_levels(101) == list(range(100, -1, -1))
    assert schedule.spaced_levels(1) == [100]


@pytest.mark.parametrize("num_steps", [0, -1, 401])
def test_impossible_numbers_of_steps_are_refused(num_steps: int) -> None:
    schedule = build_schedule(DiffusionConfig())
    with pytest.raises(ValueError, match=f"num_steps: expected 1 to 400.*found {num_steps}"):
        schedule.spaced_levels(num_steps)


def test_the_facts_are_those_of_the_betas() -> None:
    facts = build_schedule(DiffusionConfig()).facts()
    assert facts.pop("last_alpha_bar") == pytest.approx(0.0175, abs=2e-4)
    assert facts == {"num_levels": 400, "first_beta": 1e-4, "last_beta": 2e-2}


def test_a_rectified_flow_is_straight_and_ends_in_pure_noise() -> None:
    schedule = build_schedule(DiffusionConfig(schedule="rectified-flow", prediction="velocity", num_levels=5))
    assert schedule.signal.tolist() == [0.8, 0.6, 0.4, 0.2, 0.0]
    assert schedule.noise.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert schedule.facts() == {"num_levels": 5, "first_noise": 0.2, "last_signal": 0.0}


SCHEDULES = {
    "linear": linear_schedule(num_levels=40, beta_start=1e-3, beta_end=0.2),
    "cosine": cosine_schedule(num_levels=40),
    "rectified flow": rectified_flow(num_levels=40),
}
COMBINATIONS: list[tuple[str, Prediction]] = [
    (schedule, prediction)
    for schedule in SCHEDULES
    for prediction in get_args(Prediction)
    if (schedule, prediction) != ("rectified flow", "noise")
]


@pytest.mark.parametrize(("name", "prediction"), COMBINATIONS)
@pytest.mark.parametrize("level", [0, 20, 39])
def test_what_is_predicted_gives_back_the_clean_latent_and_the_noise(
    name: str, prediction: Prediction, level: int
) -> None:
    schedule, levels = SCHEDULES[name], torch.full((2,), level)
    clean, noise = torch.randn(2, 2, 3, 6, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noisy = schedule.add_noise(clean, noise, levels)
    estimate = schedule.split(noisy, schedule.target(clean, noise, levels, prediction), level, prediction)
    torch.testing.assert_close(estimate.clean, clean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(estimate.noise, noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "prediction"), COMBINATIONS)
def test_the_two_parts_of_any_prediction_add_up_to_the_noisy_latent(name: str, prediction: Prediction) -> None:
    schedule = SCHEDULES[name]
    noisy, predicted = torch.randn(2, 2, 3, 6, 5, 4, dtype=torch.float64)
    for level in (0, 20, 39):
        pair, estimate = schedule.at(level), schedule.split(noisy, predicted, level, prediction)
        together = pair.signal * estimate.clean + pair.noise * estimate.noise
        torch.testing.assert_close(together, noisy, rtol=1e-9, atol=1e-9)


def test_the_velocity_is_the_slope_of_the_flow() -> None:
    schedule, prediction = rectified_flow(num_levels=8), "velocity"
    clean, noise = torch.randn(2, 1, 3, 6, 5, 4, dtype=torch.float64)
    after, before = (schedule.add_noise(clean, noise, torch.tensor([level])) for level in (6, 2))
    velocity = schedule.target(clean, noise, torch.tensor([4]), prediction)
    torch.testing.assert_close((after - before) / (4 / 8), velocity)
