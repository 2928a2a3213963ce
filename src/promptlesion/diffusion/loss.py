"""The training loss of a denoiser, of latents or of voxels."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights, weighted_mean
from promptlesion.diffusion.schedule import NoiseSchedule, Prediction
from promptlesion.training.device import autocast, send
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
    min_snr_gamma: float | None = None,
    precision: Precision,
    device: torch.device,
) -> Float[Tensor, ""]:
    """Return the loss of a batch that the denoiser sees under its noise, its levels weighed by `min_snr_weights`.

    Args:
        min_snr_gamma: the largest (signal / noise)^2 that counts; with None all levels count alike.
    """
    schedule, level_weight = denoiser.schedule, None
    noisy = schedule.add_noise(batch.clean, batch.noise, batch.level)
    if min_snr_gamma is not None:
        weights = min_snr_weights(schedule, denoiser.prediction, gamma=min_snr_gamma)
        level_weight = send(weights.float(), device)[batch.level]
    with autocast(device, precision):
        predicted = denoiser(noisy, batch.level, *batch.conditions)
        target = schedule.target(batch.clean, batch.noise, batch.level, denoiser.prediction)
        return denoising_loss(
            predicted, target, batch.lesion_mask, lesion_weight=lesion_weight, level_weight=level_weight, kind=kind
        )


def min_snr_weights(schedule: NoiseSchedule, prediction: Prediction, *, gamma: float) -> Float[Tensor, " level"]:
    """Return the weight of the squared error of every level's prediction; their mean is 1, as without weights.

    Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", section 3.4: the squared error of
    x_0 counts min(SNR, gamma) times, SNR = (signal / noise)^2. The squared error of a prediction is d^2 / noise^2 times
    that of x_0, d being signal for the noise, signal^2 + noise^2 for v, and signal + noise for the velocity. So the
    weights are min(SNR, gamma) / SNR for the noise; min(SNR, gamma) / (SNR + 1) for v where the variance is kept; and
    min(SNR, gamma) noise^2 / (signal + noise)^2 for the velocity, min(SNR, gamma) t^2 in a rectified flow. A level
    without signal counts nothing.
    """
    signal, noise = schedule.signal, schedule.noise
    by_prediction = {"noise": signal, "v": signal.square() + noise.square(), "velocity": signal + noise}
    counted = (signal / noise).square().clamp(max=gamma)
    weights = counted * (noise / by_prediction[prediction]).square()
    return weights / weights.mean()


def denoising_loss(
    predicted: Float[Tensor, "batch channel x y z"],
    target: Float[Tensor, "batch channel x y z"],
    lesion_mask: Float[Tensor, "batch 1 x y z"] | None,
    *,
    lesion_weight: float,
    level_weight: Float[Tensor, " batch"] | None = None,
    kind: LossKind,
) -> Float[Tensor, ""]:
    """Return the mean squared or absolute error, a lesion's voxel counting more; see `lesion_weights`.

    Args:
        level_weight: factor of each sample's error.
    """
    difference = predicted.float() - target
    error = difference.square() if kind == "mse" else difference.abs()
    if level_weight is not None:
        error = level_weight.view(-1, 1, 1, 1, 1) * error
    if lesion_mask is None:
        return error.mean()
    weight = lesion_weights(lesion_mask > 0, lesion_weight=lesion_weight)
    return weighted_mean(error.mean(dim=1, keepdim=True), weight)
