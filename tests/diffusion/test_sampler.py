"""Samplers against a data distribution whose ideal denoiser is known, and against MONAI.

For data x_0 ~ N(m, s^2) and x_t = a x_0 + b noise, the ideal denoiser is the conditional mean
E[x_0 | x_t] = m + a s^2 / (a^2 s^2 + b^2) (x_t - a m), and every sampler is linear in x_t.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from promptlesion.diffusion import sampler as samplers
from promptlesion.diffusion.sampler import Denoise, NoiseSource
from promptlesion.diffusion.schedule import Estimate, NoiseSchedule, linear_schedule

MEAN, STD = 1.5, 0.4
SHAPE = (3, 9, 7, 8)
CPU = torch.device("cpu")
NO_NOISE = NoiseSource([], SHAPE, CPU)
sample_ancestral = partial(samplers.sample, sampler="ancestral")
sample_ddim = partial(samplers.sample, sampler="ddim", noise=NO_NOISE)
sample_dpm_solver = partial(samplers.sample, sampler="dpm-solver++", noise=NO_NOISE)
DETERMINISTIC = [sample_ddim, sample_dpm_solver]
Sampler = Callable[..., Tensor]


@pytest.fixture
def schedule() -> NoiseSchedule:
    """The paper's 400 levels, rescaled so that the last is nearly pure noise."""
    return linear_schedule(num_levels=400, beta_start=2.5e-4, beta_end=5e-2)


def ideal_denoiser(schedule: NoiseSchedule) -> Denoise:
    def denoise(noisy: Tensor, level: int) -> Estimate:
        alpha_bar = float(schedule.alpha_bar[level])
        a, b = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        clean = MEAN + a * STD**2 / (a**2 * STD**2 + b**2) * (noisy - a * MEAN)
        return Estimate(clean=clean, noise=(noisy - a * clean) / b)

    return denoise


def start_of(schedule: NoiseSchedule, noise: Tensor) -> Tensor:
    """Bring standard noise to the distribution of the data at the last level."""
    alpha_bar = float(schedule.alpha_bar[-1])
    return math.sqrt(alpha_bar) * MEAN + math.sqrt(alpha_bar * STD**2 + 1 - alpha_bar) * noise


def crooked_denoiser(schedule: NoiseSchedule) -> Denoise:
    """A nonlinear network of no meaning, to compare two implementations with."""

    def denoise(noisy: Tensor, level: int) -> Estimate:
        alpha_bar = float(schedule.alpha_bar[level])
        noise = torch.tanh(noisy) + 0.3 * noisy.roll(1, dims=2) + 0.1 * math.cos(level)
        return Estimate(clean=(noisy - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar), noise=noise)

    return denoise


def test_ancestral_sampling_has_the_closed_form_mean_and_variance(schedule: NoiseSchedule) -> None:
    source = NoiseSource(range(40), SHAPE, CPU)
    samples = sample_ancestral(
        start_of(schedule, source.draw()),
        schedule=schedule,
        levels=schedule.spaced_levels(400),
        denoise=ideal_denoiser(schedule),
        noise=source,
    )
    standard_error = STD / math.sqrt(samples.numel())
    assert samples.mean().item() == pytest.approx(MEAN, abs=4 * standard_error)
    # the posterior's variance of equation 7 is a little small for data that vary: 4 % over 400 levels
    assert samples.var().item() == pytest.approx(_ancestral_variance(schedule), rel=0.03)
    assert samples.var().item() == pytest.approx(STD**2, rel=0.1)


def _ancestral_variance(schedule: NoiseSchedule) -> float:
    """Carry the variance through the linear recursion of the ideal denoiser."""
    alpha_bar = schedule.alpha_bar.tolist()
    variance = alpha_bar[-1] * STD**2 + 1 - alpha_bar[-1]
    for level in reversed(range(len(alpha_bar))):
        now, after = alpha_bar[level], alpha_bar[level - 1] if level else 1.0
        slope = math.sqrt(now) * STD**2 / (now * STD**2 + 1 - now)
        alpha = now / after
        gain = math.sqrt(after) * (1 - alpha) / (1 - now) * slope + math.sqrt(alpha) * (1 - after) / (1 - now)
        variance = gain**2 * variance + (1 - after) / (1 - now) * (1 - alpha)
    return variance


@pytest.mark.parametrize("sample", DETERMINISTIC)
def test_the_deterministic_samplers_map_standard_noise_onto_the_data(schedule: NoiseSchedule, sample: Sampler) -> None:
    noise = NoiseSource([7, 8], SHAPE, CPU).draw()
    samples = sample(
        start_of(schedule, noise),
        schedule=schedule,
        levels=schedule.spaced_levels(400),
        denoise=ideal_denoiser(schedule),
    )
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=0, atol=0.02)


def test_ddim_converges_with_first_order() -> None:
    assert order_of_convergence(sample_ddim) == pytest.approx(1, abs=0.1)


def test_dpm_solver_converges_with_second_order() -> None:
    assert order_of_convergence(sample_dpm_solver) == pytest.approx(2, abs=0.2)


def order_of_convergence(sample: Sampler) -> float:
    """Slope of the error against the length of the steps, both logarithmic; short steps and long ones take turns.

    The exact path of the probability flow carries noise z to a m + sqrt(a^2 s^2 + b^2) z at every level; the last
    level is the same for all numbers of steps, and there the samplers answer with the clean part.
    """
    schedule = linear_schedule(num_levels=20_000, beta_start=5e-6, beta_end=1e-3)
    last_level = 200
    noise = NoiseSource([7], SHAPE, CPU).draw().double()
    alpha_bar = float(schedule.alpha_bar[last_level])
    at_last_level = math.sqrt(alpha_bar) * MEAN + math.sqrt(alpha_bar * STD**2 + 1 - alpha_bar) * noise
    exact = ideal_denoiser(schedule)(at_last_level, last_level).clean
    numbers = np.array([32, 64, 128, 256])
    errors = []
    for num_steps in numbers:
        levels = uneven_levels(schedule, num_steps, last_level)
        sampled = sample(start_of(schedule, noise), schedule=schedule, levels=levels, denoise=ideal_denoiser(schedule))
        errors.append(float((sampled - exact).abs().max()))
    return -float(np.polyfit(np.log(numbers), np.log(errors), 1)[0])


def uneven_levels(schedule: NoiseSchedule, num_steps: int, last_level: int) -> list[int]:
    """Levels in log(signal / noise), every second step three times as long as its neighbours."""
    log_ratio = (0.5 * (schedule.alpha_bar / (1 - schedule.alpha_bar)).log()).numpy()[::-1]
    position = np.concatenate([[0], np.cumsum(np.resize([1.0, 3.0], num_steps))]) / (2 * num_steps)
    wanted = log_ratio[0] + position * (log_ratio[-1 - last_level] - log_ratio[0])
    nearest = schedule.num_levels - 1 - np.searchsorted(log_ratio, wanted)
    levels = [schedule.num_levels - 1, *nearest[1:-1].tolist(), last_level]
    strides = -np.diff(levels)
    assert strides.min() > 0
    return levels


@pytest.mark.parametrize("num_steps", [1, 2])
def test_dpm_solver_is_ddim_where_there_is_no_step_before(schedule: NoiseSchedule, num_steps: int) -> None:
    """Lu et al. 2022, section 4: its first order is DDIM; of two steps the first has none before, the last is clean."""
    start = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ddim, dpm_solver = (
        sample(start, schedule=schedule, levels=[370, 120][:num_steps], denoise=crooked_denoiser(schedule))
        for sample in DETERMINISTIC
    )
    torch.testing.assert_close(dpm_solver, ddim, rtol=1e-10, atol=1e-10)


def test_dpm_solver_by_hand(schedule: NoiseSchedule) -> None:
    """Three steps of Algorithm 2 in the paper's own symbols."""
    levels, denoise = [390, 250, 90, 10], crooked_denoiser(schedule)
    start = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = [math.sqrt(float(schedule.alpha_bar[level])) for level in levels]
    sigma = [math.sqrt(1 - value**2) for value in a]
    lam = [math.log(signal / noise) for signal, noise in zip(a, sigma, strict=True)]
    x, outputs = start, [denoise(start, levels[0]).clean]
    for i in (1, 2, 3):
        h = lam[i] - lam[i - 1]
        estimate = outputs[i - 1]
        if i > 1:
            r = (lam[i - 1] - lam[i - 2]) / h
            estimate = (1 + 1 / (2 * r)) * outputs[i - 1] - 1 / (2 * r) * outputs[i - 2]
        x = sigma[i] / sigma[i - 1] * x - a[i] * (math.exp(-h) - 1) * estimate
        outputs.append(denoise(x, levels[i]).clean)
    ours = sample_dpm_solver(start, schedule=schedule, levels=levels, denoise=denoise)
    torch.testing.assert_close(ours, outputs[-1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 399])
def test_a_perfect_estimate_is_returned_whatever_the_levels(schedule: NoiseSchedule, num_steps: int) -> None:
    clean = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    source = NoiseSource([1, 2], SHAPE, CPU)

    def denoise(noisy: Tensor, level: int) -> Estimate:
        alpha_bar = float(schedule.alpha_bar[level])
        return Estimate(clean=clean, noise=(noisy - math.sqrt(alpha_bar) * clean) / math.sqrt(1 - alpha_bar))

    levels = schedule.spaced_levels(num_steps)
    start = source.draw()
    ancestral = sample_ancestral(start, schedule=schedule, levels=levels, denoise=denoise, noise=source)
    torch.testing.assert_close(ancestral, clean, rtol=1e-5, atol=1e-5)
    for sample in DETERMINISTIC:
        sampled = sample(start, schedule=schedule, levels=levels, denoise=denoise)
        torch.testing.assert_close(sampled, clean, rtol=1e-5, atol=1e-5)


def test_ancestral_equals_monai_step_by_step() -> None:
    schedule = linear_schedule(num_levels=50, beta_start=1e-3, beta_end=0.2)
    monai = DDPMScheduler(
        num_train_timesteps=50,
        schedule="linear_beta",
        beta_start=1e-3,
        beta_end=0.2,
        variance_type="fixed_small",
        clip_sample=False,
    )
    denoise, source = crooked_denoiser(schedule), NoiseSource([11], SHAPE, CPU)
    ours: list[Tensor] = []

    def recorded(noisy: Tensor, level: int) -> Estimate:
        ours.append(noisy)
        return denoise(noisy, level)

    start = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    levels = schedule.spaced_levels(50)
    ours.append(sample_ancestral(start, schedule=schedule, levels=levels, denoise=recorded, noise=source))
    latent, generator = start, torch.Generator().manual_seed(11)
    for level, (before, after) in zip(levels, pairwise(ours), strict=True):
        torch.testing.assert_close(latent, before, rtol=1e-4, atol=1e-4)
        latent, _ = monai.step(denoise(before, level).noise, level, before, generator=generator)
        torch.testing.assert_close(latent, after, rtol=1e-4, atol=1e-4)


def test_ddim_equals_monai_over_all_levels() -> None:
    schedule = linear_schedule(num_levels=50, beta_start=1e-3, beta_end=0.2)
    monai = DDIMScheduler(
        num_train_timesteps=50, schedule="linear_beta", beta_start=1e-3, beta_end=0.2, clip_sample=False
    )
    monai.set_timesteps(50)
    denoise = ideal_denoiser(schedule)
    start = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    latent = start
    for level in schedule.spaced_levels(50):
        latent, _ = monai.step(denoise(latent, level).noise, level, latent)
    ours = sample_ddim(start, schedule=schedule, levels=schedule.spaced_levels(50), denoise=denoise)
    torch.testing.assert_close(ours, latent, rtol=1e-4, atol=1e-4)


def test_an_items_noise_does_not_depend_on_its_batch(schedule: NoiseSchedule) -> None:
    def sample(seeds: list[int]) -> Tensor:
        source = NoiseSource(seeds, SHAPE, CPU)
        return sample_ancestral(
            source.draw(),
            schedule=schedule,
            levels=schedule.spaced_levels(5),
            denoise=ideal_denoiser(schedule),
            noise=source,
        )

    together = sample([4, 9, 2])
    assert torch.equal(together[1:2], sample([9]))
    assert torch.equal(together.flip(0), sample([2, 9, 4]))
    assert not torch.equal(together[0], together[1])


def test_noise_drawn_ahead_is_the_noise_that_comes_next() -> None:
    plain, ahead = NoiseSource([4, 9], SHAPE, CPU), NoiseSource([4, 9], SHAPE, CPU)
    for is_asked in (False, True, True, False, True):
        for _ in range(2 * is_asked):  # to ask again before it is drawn draws no more
            ahead.draw_ahead()
        assert torch.equal(ahead.draw(), plain.draw())


@pytest.mark.parametrize("name", ["ancestral", "ddim", "dpm-solver"])
def test_what_is_reinjected_after_a_step_is_what_the_next_one_sees(schedule: NoiseSchedule, name: str) -> None:
    source = NoiseSource([1], SHAPE, CPU)
    sample = {
        "ancestral": partial(sample_ancestral, noise=source),
        "ddim": sample_ddim,
        "dpm-solver": sample_dpm_solver,
    }[name]
    seen: list[Tensor] = []
    given: list[float] = []

    def denoise(noisy: Tensor, level: int) -> Estimate:
        seen.append(noisy)
        return ideal_denoiser(schedule)(noisy, level)

    def reinject(latent: Tensor, alpha_bar: float) -> Tensor:
        given.append(alpha_bar)
        return torch.full_like(latent, alpha_bar)

    levels = [399, 200, 7]
    sampled = sample(source.draw(), schedule=schedule, levels=levels, denoise=denoise, reinject=reinject)
    assert given == [*schedule.alpha_bar[levels[1:]].tolist(), 1.0]
    for latent, alpha_bar in zip([*seen[1:], sampled], given, strict=True):
        assert torch.equal(latent, torch.full_like(latent, alpha_bar))


@pytest.mark.parametrize("levels", [[], [3, 3], [1, 2], [400, 3], [5, -1]])
def test_impossible_levels_are_refused(schedule: NoiseSchedule, levels: list[int]) -> None:
    start = torch.zeros(1, *SHAPE)
    ancestral = partial(sample_ancestral, noise=NoiseSource([1], SHAPE, CPU))
    for sample in (*DETERMINISTIC, ancestral):
        with pytest.raises(ValueError, match=r"levels: expected descending levels within 0 to 399; found \["):
            sample(start, schedule=schedule, levels=levels, denoise=ideal_denoiser(schedule))
