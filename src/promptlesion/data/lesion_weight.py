"""How much more a lesion voxel counts in a loss than any other."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptlesion.training.launch import all_reduced_sum, global_sum, num_processes


def lesion_weights(
    lesion_mask: Bool[Tensor, "batch 1 x y z"], *, lesion_weight: float
) -> Float[Tensor, "batch 1 x y z"]:
    """Return 1 outside lesions and `lesion_weight` inside, but no more than makes both weigh the same in the batch.

    A plaque of a hundred voxels needs a weight of a hundred to be learned at its brightness; a sarcoma that fills a
    third of the patch would leave nothing else to learn. The batch is that of all processes together.
    """
    share = (all_reduced_sum(lesion_mask.float().mean()) / num_processes()).clamp(min=1e-6)
    inside = (1 / share - 1).clamp(min=1.0, max=lesion_weight)
    return torch.where(lesion_mask, inside, torch.ones_like(inside))


def weighted_mean(error: Float[Tensor, "batch 1 x y z"], weight: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, ""]:
    """Return the weighted mean over the batch of all processes."""
    return global_sum((weight * error).sum()) / all_reduced_sum(weight.sum())
