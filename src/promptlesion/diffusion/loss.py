"""The training loss of a denoiser, of latents or of voxels."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights, weighted_mean
from promptlesion.diffusion.schedule import NoiseSchedule, Prediction
from promptlesion.training.device import autocast
from promptlesion.training.optimisation import Precision

LossKind = Literal["mse", "l1"]


@dataclass(frozen=True)
class NoisedBatch:
    """A batch of latents or patches, and what is drawn for it."""

    clean: Float[Tensor, "batch channel x y z"]
    level: Int[Tensor, " batch"]
    noise: Float[Tensor, "batch channel x y z"]
    conditions: tuple[Any, ...]
    """What the denoiser sees beside the noisy batch and its level."""
    lesion_mask: Float[Tensor, "batch 1 x y z"] | None = None
    """Where voxels count more; without one all count alike."""


@runtime_checkable
class NoisePredictor(Protocol):
    """A denoiser as its training sees it."""

    schedule: NoiseSchedule
    prediction: Prediction

    def __call__(self, noisy: Tensor, level: Tensor, *conditions: Any) -> Tensor:
        """Return the network's prediction."""
        ...


def noise_loss(
    denoiser: NoisePredictor,
    batch: NoisedBatch,
    *,
    kind: LossKind,
    lesion_weight: float = 1.0,
    precision: Precision,
    device: torch.device,
) -> Float[Tensor, ""]:
    """Return the loss of a batch that the denoiser sees under its noise."""
    noisy = denoiser.schedule.add_noise(batch.clean, batch.noise, batch.level)
    with autocast(device, precision):
        predicted = denoiser(noisy, batch.level, *batch.conditions)
        target = denoiser.schedule.target(batch.clean, batch.noise, batch.level, denoiser.prediction)
        return denoising_loss(predicted, target, batch.lesion_mask, lesion_weight=lesion_weight, kind=kind)


def denoising_loss(
    predicted: Float[Tensor, "batch channel x y z"],
    target: Float[Tensor, "batch channel x y z"],
    lesion_mask: Float[Tensor, "batch 1 x y z"] | None,
    *,
    lesion_weight: float,
    kind: LossKind,
) -> Float[Tensor, ""]:
    """Return the mean squared or absolute error, a lesion's voxel counting more; see `lesion_weights`."""
    difference = predicted.float() - target
    error = difference.square() if kind == "mse" else difference.abs()
    if lesion_mask is None:
        return error.mean()
    weight = lesion_weights(lesion_mask > 0, lesion_weight=lesion_weight)
    return weighted_mean(error.mean(dim=1, keepdim=True), weight)
