"""What the reconstruction is held to voxel by voxel."""

from jaxtyping import Bool, Float
from torch import Tensor

from promptlesion.data.lesion_weight import lesion_weights, weighted_mean


def weighted_l1(
    reconstruction: Float[Tensor, "batch 1 x y z"],
    image: Float[Tensor, "batch 1 x y z"],
    lesion_mask: Bool[Tensor, "batch 1 x y z"],
    *,
    lesion_weight: float,
) -> Float[Tensor, ""]:
    """Return the mean absolute error in which a lesion voxel counts `lesion_weight` times (see `lesion_weights`).

    A plain mean hides the few bright voxels of a plaque: they come out at half their brightness.
    """
    weight = lesion_weights(lesion_mask, lesion_weight=lesion_weight)
    return weighted_mean((reconstruction.float() - image).abs(), weight)
