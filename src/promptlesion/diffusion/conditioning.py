"""What the denoiser is told about the place of the lesion, made alike in training and in synthesis."""

from dataclasses import dataclass

import torch
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
    whole_mask: Float[Tensor, "batch cell x y z"] | None = None
    """The voxels of every cell of the latent grid, see `unfolded_mask`; None where the network is not told them."""
    attributes: Float[Tensor, "batch attribute"] | None = None
    """What the lesion is to be like, see `ATTRIBUTES`, NaN where it is left open; None: all of it is."""

    @property
    def known(self) -> Float[Tensor, "batch known_channel x y z"]:
        """What the network sees beside the noisy latent."""
        parts = [self.surroundings, self.lesion_mask, *([] if self.whole_mask is None else [self.whole_mask])]
        return torch.cat(parts, dim=1)


def condition(
    surroundings: Float[Tensor, "batch channel u v w"],
    lesion_mask: Bool[Tensor, "batch 1 x y z"],
    lesion_type: Int[Tensor, " batch"],
    *,
    is_whole: bool,
    attributes: Float[Tensor, "batch attribute"] | None = None,
) -> Conditioning:
    """Bring masks to the grid of the latents: pooled, and whole too where the network is told every voxel."""
    downsampling = lesion_mask.shape[-1] // surroundings.shape[-1]
    return Conditioning(
        surroundings=surroundings,
        lesion_mask=mask_on_latent_grid(lesion_mask, downsampling=downsampling),
        lesion_type=lesion_type,
        whole_mask=unfolded_mask(lesion_mask, downsampling=downsampling) if is_whole else None,
        attributes=attributes,
    )


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


def unfolded_mask(
    lesion_mask: Bool[Tensor, "batch 1 x y z"], *, downsampling: int
) -> Float[Tensor, "batch cell u v w"]:
    """Bring a mask to the latent grid whole, a channel for every voxel of a cell: it says where the edge lies."""
    batch, _, *size = lesion_mask.shape
    u, v, w = (length // downsampling for length in size)
    cells = lesion_mask.reshape(batch, u, downsampling, v, downsampling, w, downsampling)
    return cells.permute(0, 2, 4, 6, 1, 3, 5).flatten(1, 3).float()
