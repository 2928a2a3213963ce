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
Prediction = Literal["noise", "v"]
"""What a denoiser's network predicts; see `NoiseSchedule.target`."""


@dataclass(frozen=True)
class Estimate:
    """The denoiser's view of a noisy latent; the two parts add up to it at its level of noise."""

    clean: Float[Tensor, "batch channel x y z"]
    noise: Float[Tensor, "batch channel x y z"]


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

    Level 0 is the least noisy.
    """

    alpha_bar: Float[Tensor, " level"]

    @property
    def num_levels(self) -> int:
        """T of the paper."""
        return len(self.alpha_bar)

    def facts(self) -> dict[str, object]:
        """Return what a checkpoint says of the schedule, in JSON types."""
        first, before_last, last = self.alpha_bar[[0, -2, -1]].tolist()
        first_beta, last_beta, last_alpha_bar = (float(f"{v:.6g}") for v in (1 - first, 1 - last / before_last, last))
        return {
            "num_levels": self.num_levels,
            "first_beta": first_beta,
            "last_beta": last_beta,
            "last_alpha_bar": last_alpha_bar,
        }

    def signal_and_noise(
        self, level: Int[Tensor, " batch"], like: Float[Tensor, "batch channel x y z"]
    ) -> tuple[Float[Tensor, "batch 1 1 1 1"], Float[Tensor, "batch 1 1 1 1"]]:
        """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar) of each sample's level."""
        # rounded before it is moved: not every accelerator has float64
        signal, sigma = (send(part.sqrt().to(like.dtype), like.device) for part in (self.alpha_bar, 1 - self.alpha_bar))
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
        """Return what a perfect network predicts: the noise, or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x_0.

        v is that of Salimans and Ho 2022, appendix D.
        """
        if prediction == "noise":
            return noise
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
        alpha_bar = float(self.alpha_bar[level])
        signal, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        if prediction == "noise":
            return Estimate(clean=(noisy - sigma * predicted) / signal, noise=predicted)
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
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0))


def cosine_schedule(*, num_levels: int, offset: float = 0.008) -> NoiseSchedule:
    """Return the cosine schedule of Nichol and Dhariwal 2021, eq. 17, its betas at most 0.999 as theirs."""
    time = torch.arange(num_levels + 1, dtype=torch.float64) / num_levels
    signal = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = (1 - signal[1:] / signal[:-1]).clamp(max=_LARGEST_BETA)
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0))


def build_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Build the schedule of a configuration."""
    if config.schedule == "cosine":
        return cosine_schedule(num_levels=config.num_levels)
    scale = 1000 / config.num_levels if config.rescale_betas else 1.0
    return linear_schedule(
        num_levels=config.num_levels,
        beta_start=config.beta_start * scale,
        beta_end=min(config.beta_end * scale, _LARGEST_BETA),
    )
