"""The training loss of stage 2."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights, weighted_mean
from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import Denoiser
from promptlesion.training.device import autocast


@dataclass(frozen=True)
class NoisedLatents:
    """A batch of latents, and what is drawn for it."""

    clean: Float[Tensor, "batch channel x y z"]
    conditioning: Conditioning
    level: Int[Tensor, " batch"]
    noise: Float[Tensor, "batch channel x y z"]
    is_prompt_dropped: Bool[Tensor, " batch"]


def latent_loss(
    denoiser: Denoiser, batch: NoisedLatents, config: DiffusionConfig, *, device: torch.device
) -> Float[Tensor, ""]:
    """Return the loss of a batch that the denoiser sees under its noise."""
    noisy = denoiser.schedule.add_noise(batch.clean, batch.noise, batch.level)
    with autocast(device, config.precision):
        return denoising_loss(
            denoiser(noisy, batch.level, batch.conditioning, batch.is_prompt_dropped),
            denoiser.schedule.target(batch.clean, batch.noise, batch.level, denoiser.prediction),
            batch.conditioning.lesion_mask,
            lesion_weight=config.lesion_weight,
            kind=config.loss,
        )


def denoising_loss(
    predicted: Float[Tensor, "batch channel x y z"],
    target: Float[Tensor, "batch channel x y z"],
    lesion_mask: Float[Tensor, "batch 1 x y z"],
    *,
    lesion_weight: float,
    kind: Literal["mse", "l1"],
) -> Float[Tensor, ""]:
    """Return the mean squared or absolute error, a lesion's latent voxel counting more; see `lesion_weights`."""
    weight = lesion_weights(lesion_mask > 0, lesion_weight=lesion_weight)
    difference = predicted.float() - target
    error = difference.square() if kind == "mse" else difference.abs()
    return weighted_mean(error.mean(dim=1, keepdim=True), weight)
