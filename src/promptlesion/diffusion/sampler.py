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

from promptlesion.diffusion.schedule import Denoise, Estimate, NoiseSchedule
from promptlesion.training.device import send

Reinject = Callable[[Float[Tensor, "batch channel x y z"], float], Float[Tensor, "batch channel x y z"]]
"""Puts what is known into a latent that has come down to a level with this alpha_bar; 1 is the clean latent."""


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
    alpha_bar: float
    next_alpha_bar: float
    """1 is the clean latent."""


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
        schedule: gives alpha_bar.
        levels: from noisy to clean, strictly descending; after the last comes the clean latent.
        denoise: the denoiser with its conditioning bound.
        noise: fresh noise for every step but the last.
        reinject: called after every step, with the latent and the next level's alpha_bar.
    """
    is_ancestral = sampler == "ancestral"
    follow = ddim_step if sampler == "ddim" else DPMSolver().step
    latent = start
    for level, alpha_bar, next_alpha_bar in _walk(schedule, levels):
        if is_ancestral and next_alpha_bar < 1 and latent.device.type != "cpu":
            # 16 items of 24 x 24 x 24 x 8 take a core longer than a step takes a GPU
            noise.draw_ahead()
        step = Step(latent, denoise(latent, level), alpha_bar, next_alpha_bar)
        latent = ancestral_step(step, noise) if is_ancestral else follow(step)
        if reinject:
            latent = reinject(latent, next_alpha_bar)
    return latent


def ancestral_step(step: Step, noise: NoiseSource) -> Tensor:
    """Draw from the posterior of the next level given this one (Ho et al. 2020, eq. 6 and 7)."""
    alpha = step.alpha_bar / step.next_alpha_bar
    weight_clean = step.next_alpha_bar**0.5 * (1 - alpha) / (1 - step.alpha_bar)
    weight_latent = alpha**0.5 * (1 - step.next_alpha_bar) / (1 - step.alpha_bar)
    latent: Tensor = weight_clean * step.estimate.clean + weight_latent * step.latent
    if step.next_alpha_bar < 1:
        variance = (1 - step.next_alpha_bar) / (1 - step.alpha_bar) * (1 - alpha)
        latent = latent + variance**0.5 * noise.draw()
    return latent


def ddim_step(step: Step) -> Tensor:
    """Follow the deterministic path of DDIM (Song et al. 2021, eq. 12 with sigma = 0)."""
    estimate, alpha_bar = step.estimate, step.next_alpha_bar
    latent: Tensor = alpha_bar**0.5 * estimate.clean + (1 - alpha_bar) ** 0.5 * estimate.noise
    return latent


class DPMSolver:
    """The path of DDIM with second order: DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", Algorithm 2).

    Steps are measured in h, the difference of log(signal / noise). The first step has no step before it and the last
    one ends where that is infinite: both are of first order.
    """

    _previous: tuple[Tensor, float] | None = None

    def step(self, step: Step) -> Tensor:
        """Return the latent at the next level."""
        clean = extrapolated = step.estimate.clean
        if step.next_alpha_bar == 1:
            return clean
        h = _log_signal_to_noise(step.next_alpha_bar) - _log_signal_to_noise(step.alpha_bar)
        if self._previous is not None:
            previous_clean, previous_h = self._previous
            extrapolated = clean + h / (2 * previous_h) * (clean - previous_clean)
        self._previous = clean, h
        sigma_ratio = ((1 - step.next_alpha_bar) / (1 - step.alpha_bar)) ** 0.5
        latent: Tensor = sigma_ratio * step.latent - step.next_alpha_bar**0.5 * math.expm1(-h) * extrapolated
        return latent


def _log_signal_to_noise(alpha_bar: float) -> float:
    return 0.5 * (math.log(alpha_bar) - math.log1p(-alpha_bar))


def _walk(schedule: NoiseSchedule, levels: Sequence[int]) -> list[tuple[int, float, float]]:
    """Return each level with its alpha_bar and that of the level after it, 1 after the last.

    Raises:
        ValueError: the levels are empty, not descending, or not of the schedule.
    """
    is_descending = all(first > second for first, second in pairwise(levels))
    if not levels or not is_descending or levels[0] >= schedule.num_levels or levels[-1] < 0:
        raise ValueError(
            f"levels: expected descending levels within 0 to {schedule.num_levels - 1}; found {list(levels)}"
        )
    alpha_bars = [float(schedule.alpha_bar[level]) for level in levels]
    return list(zip(levels, alpha_bars, [*alpha_bars[1:], 1.0], strict=True))
