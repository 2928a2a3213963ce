"""The noise schedule against numpy and the paper's figures."""

import numpy as np
import pytest
import torch

from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.schedule import build_schedule, cosine_schedule, linear_schedule


def test_alpha_bar_is_the_product_of_one_minus_beta() -> None:
    schedule = linear_schedule(num_levels=37, beta_start=1e-3, beta_end=0.3)
    expected = np.cumprod(1 - np.linspace(1e-3, 0.3, 37))
    np.testing.assert_allclose(schedule.alpha_bar.numpy(), expected, rtol=1e-12)
    assert schedule.num_levels == 37


def test_the_papers_schedule_leaves_a_trace_and_the_rescaled_one_does_not() -> None:
    paper = build_schedule(DiffusionConfig())
    assert paper.num_levels == 400
    assert float(paper.alpha_bar[-1]) == pytest.approx(0.0175, abs=2e-4)
    rescaled = build_schedule(DiffusionConfig(rescale_betas=True))
    assert float(rescaled.alpha_bar[-1]) == pytest.approx(4e-5, rel=0.15)


def test_the_cosine_schedule_is_nichol_and_dhariwals() -> None:
    """Equation 17: alpha_bar is f(t) / f(0), f(t) = cos^2((t / T + s) / (1 + s) pi / 2), up to the capped betas."""
    schedule = build_schedule(DiffusionConfig(schedule="cosine", num_levels=250))
    signal = np.cos((np.arange(251) / 250 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:-1].numpy(), signal[1:-1] / signal[0], rtol=1e-9)
    betas = 1 - schedule.alpha_bar[1:] / schedule.alpha_bar[:-1]
    assert float(betas[-1]) == pytest.approx(0.999)
    assert bool((betas.diff() > -1e-12).all())
    assert torch.equal(schedule.alpha_bar, cosine_schedule(num_levels=250, offset=0.008).alpha_bar)


def test_rescaling_a_thousand_levels_changes_nothing() -> None:
    plain = build_schedule(DiffusionConfig(num_levels=1000))
    rescaled = build_schedule(DiffusionConfig(num_levels=1000, rescale_betas=True))
    assert torch.equal(plain.alpha_bar, rescaled.alpha_bar)


def test_signal_falls_and_stays_positive_even_for_very_few_levels() -> None:
    for num_levels in (2, 5, 20, 400):
        alpha_bar = build_schedule(DiffusionConfig(num_levels=num_levels, rescale_betas=True)).alpha_bar
        assert bool((alpha_bar.diff() < 0).all())
        assert 0 < float(alpha_bar[-1]) < float(alpha_bar[0]) < 1


def test_signal_and_noise_are_a_point_on_the_unit_circle() -> None:
    schedule = build_schedule(DiffusionConfig())
    level = torch.tensor([0, 17, 399])
    signal, sigma = schedule.signal_and_noise(level, torch.zeros(3, 2, 3, 4, 5))
    assert signal.shape == sigma.shape == (3, 1, 1, 1, 1)
    torch.testing.assert_close(signal**2 + sigma**2, torch.ones(3, 1, 1, 1, 1))
    torch.testing.assert_close(signal.flatten().double() ** 2, schedule.alpha_bar[level], rtol=1e-5, atol=0)


def test_noisy_data_have_the_mean_and_the_variance_of_equation_4() -> None:
    schedule = build_schedule(DiffusionConfig())
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([3, 120, 390])
    clean = torch.full((3, 8, 24, 20, 28), 2.0)
    noisy = schedule.add_noise(clean, torch.randn(clean.shape, generator=generator), level).double()
    alpha_bar = schedule.alpha_bar[level]
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
