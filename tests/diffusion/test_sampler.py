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
from promptlesion.diffusion.schedule import (
    CLEAN,
    Estimate,
    NoiseSchedule,
    Pair,
    linear_schedule,
    rectified_flow,
)

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
        a, b = schedule.at(level).signal, schedule.at(level).noise
        clean = MEAN + a * STD**2 / (a**2 * STD**2 + b**2) * (noisy - a * MEAN)
        return Estimate(clean=clean, noise=(noisy - a * clean) / b)

    return denoise


def start_of(schedule: NoiseSchedule, noise: Tensor) -> Tensor:
    """Bring standard noise to the distribution of the data at the last level."""
    return diffused(schedule.at(-1), noise)


def diffused(pair: Pair, noise: Tensor) -> Tensor:
    """Bring standard noise to the distribution of the data at a level."""
    return pair.signal * MEAN + math.hypot(pair.signal * STD, pair.noise) * noise


def crooked_denoiser(schedule: NoiseSchedule) -> Denoise:
    """A nonlinear network of no meaning, to compare two implementations with."""

    def denoise(noisy: Tensor, level: int) -> Estimate:
        noise = torch.tanh(noisy) + 0.3 * noisy.roll(1, dims=2) + 0.1 * math.cos(level)
        return schedule.split(noisy, noise, level, "noise")

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
    alpha_bar = schedule.signal.square().tolist()
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
    exact = ideal_denoiser(schedule)(diffused(schedule.at(last_level), noise), last_level).clean
    numbers = np.array([32, 64, 128, 256])
    errors = []
    for num_steps in numbers:
        levels = uneven_levels(schedule, num_steps, last_level)
        sampled = sample(start_of(schedule, noise), schedule=schedule, levels=levels, denoise=ideal_denoiser(schedule))
        errors.append(float((sampled - exact).abs().max()))
    return -float(np.polyfit(np.log(numbers), np.log(errors), 1)[0])


def uneven_levels(schedule: NoiseSchedule, num_steps: int, last_level: int) -> list[int]:
    """Levels in log(signal / noise), every second step three times as long as its neighbours."""
    log_ratio = (schedule.signal / schedule.noise).log().numpy()[::-1]
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
    a, sigma = ([*part[levels].tolist()] for part in (schedule.signal, schedule.noise))
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
        pair = schedule.at(level)
        return Estimate(clean=clean, noise=(noisy - pair.signal * clean) / pair.noise)

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
    given: list[Pair] = []

    def denoise(noisy: Tensor, level: int) -> Estimate:
        seen.append(noisy)
        return ideal_denoiser(schedule)(noisy, level)

    def reinject(latent: Tensor, pair: Pair) -> Tensor:
        given.append(pair)
        return torch.full_like(latent, pair.signal)

    levels = [399, 200, 7]
    sampled = sample(source.draw(), schedule=schedule, levels=levels, denoise=denoise, reinject=reinject)
    assert given == [*(schedule.at(level) for level in levels[1:]), CLEAN]
    for latent, pair in zip([*seen[1:], sampled], given, strict=True):
        assert torch.equal(latent, torch.full_like(latent, pair.signal))


@pytest.mark.parametrize("num_steps", [1, 2, 7, 40])
def test_a_flow_from_pure_noise_to_a_point_ends_there(num_steps: int) -> None:
    """Where all data are one point, the velocity noise - x_0 is known, and one step of any sampler suffices."""
    flow = rectified_flow(num_levels=40)
    point = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def denoise(noisy: Tensor, level: int) -> Estimate:
        pair = flow.at(level)
        velocity = (noisy - pair.signal * point) / pair.noise - point
        return flow.split(noisy, velocity, level, "velocity")

    source, levels = NoiseSource([1, 2], SHAPE, CPU), flow.spaced_levels(num_steps)
    start = source.draw().double()
    for sample in (*DETERMINISTIC, partial(sample_ancestral, noise=source)):
        sampled = sample(start, schedule=flow, levels=levels, denoise=denoise)
        torch.testing.assert_close(sampled, point.expand_as(sampled), rtol=1e-9, atol=1e-9)


def test_ddim_on_a_flow_is_euler() -> None:
    flow, levels = rectified_flow(num_levels=40), [39, 25, 12, 3]

    def velocity(noisy: Tensor, level: int) -> Tensor:
        return torch.tanh(noisy) + 0.3 * noisy.roll(1, dims=2) + 0.1 * math.cos(level)

    start = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sampled = sample_ddim(
        start,
        schedule=flow,
        levels=levels,
        denoise=lambda noisy, level: flow.split(noisy, velocity(noisy, level), level, "velocity"),
    )
    times, latent = [*((level + 1) / 40 for level in levels), 0.0], start
    for level, (now, after) in zip(levels, pairwise(times), strict=True):
        latent = latent + (after - now) * velocity(latent, level)
    torch.testing.assert_close(sampled, latent, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sample", DETERMINISTIC)
def test_a_flow_carries_pure_noise_onto_the_data(sample: Sampler) -> None:
    flow = rectified_flow(num_levels=400)
    noise = NoiseSource([7, 8], SHAPE, CPU).draw()
    samples = sample(noise, schedule=flow, levels=flow.spaced_levels(400), denoise=ideal_denoiser(flow))
    torch.testing.assert_close(samples, MEAN + STD * noise, rtol=0, atol=0.02)


@pytest.mark.parametrize("level", [39, 20])
def test_an_ancestral_step_has_the_mean_and_the_variance_of_the_gaussian_posterior(level: int) -> None:
    """Of x_s, whose density given x_0 is N(signal_s x_0, noise_s^2), given x_t = a x_s + added noise: Bayes by hand."""
    flow, next_level = rectified_flow(num_levels=40), 9
    pair, next_pair = flow.at(level), flow.at(next_level)
    clean = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    latent = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    estimate = Estimate(clean=clean, noise=(latent - pair.signal * clean) / pair.noise)
    source = NoiseSource(range(200), SHAPE, CPU)
    drawn = samplers.ancestral_step(samplers.Step(latent.expand(200, *SHAPE), estimate, pair, next_pair), source)
    a = pair.signal / next_pair.signal
    added = pair.noise**2 - a**2 * next_pair.noise**2
    variance = 1 / (1 / next_pair.noise**2 + a**2 / added)
    mean = variance * (next_pair.signal * clean / next_pair.noise**2 + a * latent / added)
    error = drawn - mean
    assert error.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance / error.numel()))
    assert error.var().item() == pytest.approx(variance, rel=0.03)


def test_ancestral_steps_keep_the_marginals_of_a_point() -> None:
    """Data of one point are N(signal x_0, noise^2) at every level, however few are visited."""
    flow = rectified_flow(num_levels=40)
    source, seen = NoiseSource(range(40), SHAPE, CPU), {}

    def denoise(noisy: Tensor, level: int) -> Estimate:
        seen[level] = noisy
        return Estimate(clean=torch.full_like(noisy, MEAN), noise=noisy)

    sample_ancestral(source.draw(), schedule=flow, levels=[39, 30, 10], denoise=denoise, noise=source)
    for level, latent in seen.items():
        pair = flow.at(level)
        standard_error = pair.noise / math.sqrt(latent.numel())
        assert latent.mean().item() == pytest.approx(pair.signal * MEAN, abs=4 * standard_error)
        assert latent.std().item() == pytest.approx(pair.noise, rel=0.03)


@pytest.mark.parametrize("levels", [[], [3, 3], [1, 2], [400, 3], [5, -1]])
def test_impossible_levels_are_refused(schedule: NoiseSchedule, levels: list[int]) -> None:
    start = torch.zeros(1, *SHAPE)
    ancestral = partial(sample_ancestral, noise=NoiseSource([1], SHAPE, CPU))
    for sample in (*DETERMINISTIC, ancestral):
        with pytest.raises(ValueError, match=r"levels: expected descending levels within 0 to 399; found \["):
            sample(start, schedule=schedule, levels=levels, denoise=ideal_denoiser(schedule))
