"""The noise schedule: how much of the latent is left at each level. Knows no network and no sampler."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.training.device import send

_LARGEST_BETA = 0.999
Prediction = Literal["noise", "v", "velocity"]
"""What a denoiser's network predicts; see `NoiseSchedule.target`."""


@dataclass(frozen=True)
class Estimate:
    """The denoiser's view of a noisy latent; the two parts add up to it at its level of noise."""

    clean: Float[Tensor, "batch channel x y z"]
    noise: Float[Tensor, "batch channel x y z"]


@dataclass(frozen=True)
class Pair:
    """How much of the clean latent and how much noise a noisy latent holds."""

    signal: float
    noise: float


CLEAN = Pair(signal=1.0, noise=0.0)
"""The clean latent, which comes after the least noisy level."""


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = signal_t x_0 + noise_t noise, a pair of float64 coefficients for every level.

    Level 0 is the least noisy; signal / noise falls from level to level, at the last one to 0 at the least.
    """

    signal: Float[Tensor, " level"]
    noise: Float[Tensor, " level"]

    @classmethod
    def from_alpha_bar(cls, alpha_bar: Float[Tensor, " level"]) -> "NoiseSchedule":
        """Return the pairs sqrt(alpha_bar), sqrt(1 - alpha_bar), which keep the variance (Ho et al. 2020, eq. 4)."""
        return cls(signal=alpha_bar.sqrt(), noise=(1 - alpha_bar).sqrt())

    @property
    def num_levels(self) -> int:
        """T of the paper."""
        return len(self.signal)

    def at(self, level: int) -> Pair:
        """Return the pair of a level."""
        return Pair(float(self.signal[level]), float(self.noise[level]))

    def facts(self) -> dict[str, object]:
        """Return what a checkpoint says of the schedule, in JSON types; of betas only where there are some."""
        first, before_last, last = self.signal.square()[[0, -2, -1]].tolist()
        facts = {"first_beta": 1 - first, "last_beta": 1 - last / before_last, "last_alpha_bar": last}
        if not torch.allclose(self.signal.square() + self.noise.square(), torch.ones_like(self.signal)):
            facts = {"first_noise": float(self.noise[0]), "last_signal": float(self.signal[-1])}
        return {"num_levels": self.num_levels, **{name: float(f"{value:.6g}") for name, value in facts.items()}}

    def signal_and_noise(
        self, level: Int[Tensor, " batch"], like: Float[Tensor, "batch channel x y z"]
    ) -> tuple[Float[Tensor, "batch 1 1 1 1"], Float[Tensor, "batch 1 1 1 1"]]:
        """Return the pair of each sample's level."""
        # rounded before it is moved: not every accelerator has float64
        signal, sigma = (send(part.to(like.dtype), like.device) for part in (self.signal, self.noise))
        return signal[level].view(-1, 1, 1, 1, 1), sigma[level].view(-1, 1, 1, 1, 1)

    def add_noise(
        self,
        clean: Float[Tensor, "batch channel x y z"],
        noise: Float[Tensor, "batch channel x y z"],
        level: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return the latent at the given level of noise."""
        signal, sigma = self.signal_and_noise(level, clean)
        return signal * clean + sigma * noise

    def target(
        self,
        clean: Float[Tensor, "batch channel x y z"],
        noise: Float[Tensor, "batch channel x y z"],
        level: Int[Tensor, " batch"],
        prediction: Prediction,
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return what a perfect network predicts: the noise, v or the velocity.

        v = signal_t noise - noise_t x_0 (Salimans and Ho 2022, appendix D); velocity = noise - x_0, along which a
        rectified flow runs (Liu et al. 2022, eq. 1; Lipman et al. 2022, eq. 23). Each may be predicted under any
        schedule, but the noise only where every level has signal: without it nothing is said of x_0.
        """
        if prediction == "noise":
            return noise
        if prediction == "velocity":
            return noise - clean
        signal, sigma = self.signal_and_noise(level, clean)
        return signal * noise - sigma * clean

    def split(
        self,
        noisy: Float[Tensor, "batch channel x y z"],
        predicted: Float[Tensor, "batch channel x y z"],
        level: int,
        prediction: Prediction,
    ) -> Estimate:
        """Return the parts of a latent whose target, see `target`, was predicted; all samples have one level."""
        pair = self.at(level)
        signal, sigma = pair.signal, pair.noise
        if prediction == "noise":
            return Estimate(clean=(noisy - sigma * predicted) / signal, noise=predicted)
        if prediction == "velocity":
            total = signal + sigma
            return Estimate(clean=(noisy - sigma * predicted) / total, noise=(noisy + signal * predicted) / total)
        variance = signal**2 + sigma**2
        signal, sigma = signal / variance, sigma / variance
        return Estimate(clean=signal * noisy - sigma * predicted, noise=sigma * noisy + signal * predicted)

    def spaced_levels(self, num_steps: int) -> list[int]:
        """Return `num_steps` evenly spaced levels from the noisiest to the least noisy one.

        Raises:
            ValueError: more steps than levels, or none.
        """
        if not 1 <= num_steps <= self.num_levels:
            raise ValueError(
                f"num_steps: expected 1 to {self.num_levels}, the levels of the schedule; found {num_steps}"
            )
        if num_steps == 1:
            return [self.num_levels - 1]
        return [
            round(value) for value in torch.linspace(self.num_levels - 1, 0, num_steps, dtype=torch.float64).tolist()
        ]


Denoise = Callable[[Float[Tensor, "batch channel x y z"], int], Estimate]
"""Splits a noisy latent at a level into its clean part and its noise."""


def linear_schedule(*, num_levels: int, beta_start: float, beta_end: float) -> NoiseSchedule:
    """Return the schedule whose variances grow linearly from `beta_start` to `beta_end`."""
    betas = torch.linspace(beta_start, beta_end, num_levels, dtype=torch.float64)
    return NoiseSchedule.from_alpha_bar(torch.cumprod(1 - betas, dim=0))


def cosine_schedule(*, num_levels: int, offset: float = 0.008) -> NoiseSchedule:
    """Return the cosine schedule of Nichol and Dhariwal 2021, eq. 17, its betas at most 0.999 as theirs."""
    time = torch.arange(num_levels + 1, dtype=torch.float64) / num_levels
    signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - signal[1:] / signal[:-1]).clamp(max=_LARGEST_BETA)
    return NoiseSchedule.from_alpha_bar(torch.cumprod(1 - betas, dim=0))


def rectified_flow(*, num_levels: int) -> NoiseSchedule:
    """Return the straight way from data to noise: x_t = (1 - t) x_0 + t noise at t = 1 / T, 2 / T, ..., 1.

    Liu et al. 2022, "Flow Straight and Fast", eq. 1; Lipman et al. 2022, "Flow Matching", eq. 22 with sigma_min = 0.
    The last level is pure noise.
    """
    step = torch.arange(1, num_levels + 1, dtype=torch.float64)
    return NoiseSchedule(signal=(num_levels - step) / num_levels, noise=step / num_levels)


def build_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Build the schedule of a configuration."""
    if config.schedule == "cosine":
        return cosine_schedule(num_levels=config.num_levels)
    if config.schedule == "rectified-flow":
        return rectified_flow(num_levels=config.num_levels)
    scale = 1000 / config.num_levels if config.rescale_betas else 1.0
    return linear_schedule(
        num_levels=config.num_levels,
        beta_start=config.beta_start * scale,
        beta_end=min(config.beta_end * scale, _LARGEST_BETA),
    )
