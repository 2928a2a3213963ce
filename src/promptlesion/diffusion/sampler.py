"""From noise to latent: the ancestral sampler, DDIM and DPM-Solver++(2M), one plain walk over noise levels.

Knows no network: whatever splits a noisy latent into clean part and noise can be sampled from.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from promptlesion.diffusion.schedule import CLEAN, Denoise, Estimate, NoiseSchedule, Pair
from promptlesion.training.device import send

Reinject = Callable[[Float[Tensor, "batch channel x y z"], Pair], Float[Tensor, "batch channel x y z"]]
"""Puts what is known into a latent that has come down to a level with this pair, or to the clean latent."""


class NoiseSource:
    """Standard normal noise, each item of a batch from its own generator: batching changes nothing.

    It is drawn on the CPU, so that a seed gives the same noise on every device.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> None:
        """Make a generator per seed; `shape` is that of one item."""
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape = shape
        self._device = device
        self._threads = ThreadPoolExecutor(max(1, len(seeds)))  # starts none until it has work
        self._coming: list[Future[Tensor]] = []

    def draw(self) -> Float[Tensor, "batch channel x y z"]:
        """Return the next noise of every item."""
        coming, self._coming = self._coming, []
        drawn = [item.result() for item in coming] or [self._randn(generator) for generator in self._generators]
        return send(torch.stack(drawn), self._device)

    def draw_ahead(self) -> None:
        """Let other threads draw what `draw` will return next; it will be waited for there."""
        if not self._coming:
            self._coming = [self._threads.submit(self._randn, generator) for generator in self._generators]

    def _randn(self, generator: torch.Generator) -> Tensor:
        return torch.randn(self._shape, generator=generator)


@dataclass(frozen=True)
class Step:
    """From one level to the next, by what the denoiser sees at the first."""

    latent: Float[Tensor, "batch channel x y z"]
    estimate: Estimate
    pair: Pair
    next_pair: Pair
    """That of the clean latent after the last level."""


def sample(
    start: Float[Tensor, "batch channel x y z"],
    *,
    sampler: Literal["ancestral", "ddim", "dpm-solver++"],
    schedule: NoiseSchedule,
    levels: Sequence[int],
    denoise: Denoise,
    noise: NoiseSource,
    reinject: Reinject | None = None,
) -> Float[Tensor, "batch channel x y z"]:
    """Walk the levels with the sampler of that name.

    Args:
        start: latent at the first level.
        sampler: `ancestral` draws from the posterior of each next level; the others draw no fresh noise.
        schedule: gives the pairs.
        levels: from noisy to clean, strictly descending; after the last comes the clean latent.
        denoise: the denoiser with its conditioning bound.
        noise: fresh noise for every step but the last.
        reinject: called after every step, with the latent and the next level's pair.
    """
    is_ancestral = sampler == "ancestral"
    follow = ddim_step if sampler == "ddim" else DPMSolver().step
    latent = start
    for level, pair, next_pair in _walk(schedule, levels):
        if is_ancestral and next_pair != CLEAN and latent.device.type != "cpu":
            # 16 items of 24 x 24 x 24 x 8 take a core longer than a step takes a GPU
            noise.draw_ahead()
        step = Step(latent, denoise(latent, level), pair, next_pair)
        latent = ancestral_step(step, noise) if is_ancestral else follow(step)
        if reinject:
            latent = reinject(latent, next_pair)
    return latent


def ancestral_step(step: Step, noise: NoiseSource) -> Tensor:
    """Draw from the posterior of the next level given this one (Ho et al. 2020, eq. 6 and 7, for any pairs).

    Each level is the one before and more noise: x_t = a x_s + sqrt(noise_t^2 - a^2 noise_s^2) noise, a = signal_t /
    signal_s.
    A level without signal keeps nothing of x_s, which is then drawn from its distribution given x_0 alone.
    """
    kept = step.pair.signal / step.next_pair.signal
    variance, next_variance = step.pair.noise**2, step.next_pair.noise**2
    added = variance - kept**2 * next_variance
    latent: Tensor = (
        step.next_pair.signal * added / variance * step.estimate.clean + kept * next_variance / variance * step.latent
    )
    if step.next_pair != CLEAN:
        latent = latent + (next_variance / variance * added) ** 0.5 * noise.draw()
    return latent


def ddim_step(step: Step) -> Tensor:
    """Follow the deterministic path of DDIM (Song et al. 2021, eq. 12 with sigma = 0).

    On a rectified flow it is Euler's: latent + (t' - t) velocity.
    """
    latent: Tensor = step.next_pair.signal * step.estimate.clean + step.next_pair.noise * step.estimate.noise
    return latent


class DPMSolver:
    """The path of DDIM with second order: DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", Algorithm 2).

    Steps are measured in h, the difference of log(signal / noise). The first step has no step before it and the last
    one ends where that is infinite: both are of first order. So is the second where the first began without signal.
    """

    _previous: tuple[Tensor, float] | None = None

    def step(self, step: Step) -> Tensor:
        """Return the latent at the next level."""
        clean = extrapolated = step.estimate.clean
        if step.next_pair == CLEAN:
            return clean
        h = _log_signal_to_noise(step.next_pair) - _log_signal_to_noise(step.pair)
        if self._previous is not None:
            previous_clean, previous_h = self._previous
            extrapolated = clean + h / (2 * previous_h) * (clean - previous_clean)
        self._previous = clean, h
        sigma_ratio = step.next_pair.noise / step.pair.noise
        latent: Tensor = sigma_ratio * step.latent - step.next_pair.signal * math.expm1(-h) * extrapolated
        return latent


def _log_signal_to_noise(pair: Pair) -> float:
    return math.log(pair.signal / pair.noise) if pair.signal > 0 else -math.inf


def _walk(schedule: NoiseSchedule, levels: Sequence[int]) -> list[tuple[int, Pair, Pair]]:
    """Return each level with its pair and that of the level after it, the clean latent's after the last.

    Raises:
        ValueError: the levels are empty, not descending, or not of the schedule.
    """
    is_descending = all(first > second for first, second in pairwise(levels))
    if not levels or not is_descending or levels[0] >= schedule.num_levels or levels[-1] < 0:
        raise ValueError(
            f"levels: expected descending levels within 0 to {schedule.num_levels - 1}; found {list(levels)}"
        )
    pairs = [schedule.at(level) for level in levels]
    return list(zip(levels, pairs, [*pairs[1:], CLEAN], strict=True))
