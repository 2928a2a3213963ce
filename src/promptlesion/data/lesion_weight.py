"""How much more a lesion voxel counts in a loss than any other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def lesion_weights(
    lesion_mask: Bool[Tensor, "batch 1 x y z"], *, lesion_weight: float
) -> Float[Tensor, "batch 1 x y z"]:
    """Return 1 outside lesions and `lesion_weight` inside, but no more than makes both weigh the same in the batch.

    A plaque of a hundred voxels needs a weight of a hundred to be learned at its brightness; a sarcoma that fills a
    third of the patch would leave nothing else to learn.
    """
    share = lesion_mask.float().mean().clamp(min=1e-6)
    inside = (1 / share - 1).clamp(min=1.0, max=lesion_weight)
    return torch.where(lesion_mask, inside, torch.ones_like(inside))
