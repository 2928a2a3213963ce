"""The training loss of stage 2."""

from jaxtyping import Float
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights


def denoising_loss(
    predicted: Float[Tensor, "batch channel x y z"],
    target: Float[Tensor, "batch channel x y z"],
    lesion_mask: Float[Tensor, "batch 1 x y z"],
    *,
    lesion_weight: float,
) -> Float[Tensor, ""]:
    """Return the mean squared error in which a lesion's latent voxel counts more; see `lesion_weights`."""
    weight = lesion_weights(lesion_mask > 0, lesion_weight=lesion_weight)
    error = (predicted.float() - target).square().mean(dim=1, keepdim=True)
    return (weight * error).sum() / weight.sum()
