"""What is a lesion's own in its HU: the pattern that neither the scanner's blur at its edge nor its place explains."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Num
from scipy import ndimage

_MAX_DEPTH = 8


@dataclass(frozen=True, eq=False)
class LesionTexture:
    """HU of a lesion less what every lesion of its form would have; 0 outside of its mask.

    `pattern_hu` lies in the mask's bounding box with a voxel around it; `std_hu` is its standard deviation, None
    where too few voxels are left to tell.
    """

    pattern_hu: Float64[np.ndarray, "x y z"]
    std_hu: float | None
    center_voxel: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]

    @property
    def neighbour_correlation(self) -> float | None:
        """Correlation of touching voxels: near 1 smooth blobs, near 0 fine grain; None without a pattern."""
        inside = self.pattern_hu != 0
        products, squares = 0.0, 0.0
        for axis in range(3):
            ahead = np.roll(self.pattern_hu, -1, axis)  # the empty voxels around it meet themselves
            pairs = inside & (ahead != 0)
            products += float((self.pattern_hu * ahead)[pairs].sum())
            squares += float((self.pattern_hu**2 + ahead**2)[pairs].sum()) / 2
        return products / squares if squares else None


def lesion_texture(
    hu: Num[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> LesionTexture:
    """Take from a lesion's HU the mean of every depth below its surface and a slope along each axis.

    A small lesion is dim at its edge because the scanner blurs it, and brighter towards a bright neighbour; so are
    others of its form, and what is left tells lesions apart.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside_hu = hu[box][mask[box]].astype(np.float64)
    mask = np.pad(mask[box], 1)
    depth = np.ceil(ndimage.distance_transform_edt(mask, sampling=_in_smallest(spacing_mm)))[mask]
    occupied = np.argwhere(mask)
    center = occupied.mean(axis=0)
    layers = [depth == layer for layer in np.unique(np.minimum(depth, _MAX_DEPTH))]
    layers[-1] = depth >= np.minimum(depth, _MAX_DEPTH).max()
    explained = np.column_stack([*layers, occupied - center]).astype(np.float64)
    coefficients, _, rank, _ = np.linalg.lstsq(explained, inside_hu, rcond=None)
    left = inside_hu - explained @ coefficients
    spare = len(inside_hu) - int(rank)
    pattern = np.zeros(mask.shape)
    pattern[mask] = left if spare > 0 else 0.0
    x, y, z = (float(value) for value in center)
    std_hu = float(np.sqrt((left**2).sum() / spare)) if spare > 0 else None
    return LesionTexture(pattern, std_hu, (x, y, z), spacing_mm)


def _in_smallest(spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    x, y, z = (side / min(spacing_mm) for side in spacing_mm)
    return x, y, z
