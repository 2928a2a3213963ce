"""The training loss of stage 2."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights, weighted_mean


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
