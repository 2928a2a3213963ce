"""What the denoiser is told about the place of the lesion, made alike in training and in synthesis."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLANK_INTENSITY = -1.0


@dataclass(frozen=True)
class Conditioning:
    """Surroundings, place and type of the lesions of a batch."""

    surroundings: Float[Tensor, "batch channel x y z"]
    """Latent of the patch with the lesion and a margin around it blanked."""
    lesion_mask: Float[Tensor, "batch 1 x y z"]
    """The drawn mask on the latent grid."""
    lesion_type: Int[Tensor, " batch"]
    """Index of the asked-for type, in prompt order."""


def dilate(lesion_mask: Bool[Tensor, "batch 1 x y z"], *, margin_voxels: int) -> Bool[Tensor, "batch 1 x y z"]:
    """Return the lesion and a margin around it: all voxels at most `margin_voxels` away along every axis."""
    return F.max_pool3d(lesion_mask.float(), 2 * margin_voxels + 1, stride=1, padding=margin_voxels) > 0


def blank_lesion(
    image: Float[Tensor, "batch 1 x y z"], lesion_mask: Bool[Tensor, "batch 1 x y z"], *, margin_voxels: int
) -> Float[Tensor, "batch 1 x y z"]:
    """Blank the lesion and a margin around it in normalised intensity.

    A lesion blooms over its mask: blanked by the mask alone, its halo tells the network what to paint.
    """
    return image.masked_fill(dilate(lesion_mask, margin_voxels=margin_voxels), BLANK_INTENSITY)


def mask_on_latent_grid(
    lesion_mask: Bool[Tensor, "batch 1 x y z"], *, downsampling: int
) -> Float[Tensor, "batch 1 u v w"]:
    """Bring a mask to the latent grid by max pooling: a lesion of a few voxels does not vanish."""
    return F.max_pool3d(lesion_mask.float(), downsampling)
