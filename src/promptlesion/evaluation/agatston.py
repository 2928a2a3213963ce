"""Coronary calcium as radiologists count it: the Agatston score and the volume of plaque."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

CALCIUM_HU = 130.0
MIN_AREA_MM2 = 1.0
SLICE_MM = 3.0
_DENSITY_STEPS_HU = (200.0, 300.0, 400.0)


@dataclass(frozen=True)
class PlaqueBurden:
    """How much plaque, and how much of it is calcified.

    `agatston` is the Agatston score, `volume_mm3` that of the whole mask, `calcium_mm3` that of its voxels of at least
    130 HU.
    """

    agatston: float
    volume_mm3: float
    calcium_mm3: float


def plaque_burden(
    hu: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> PlaqueBurden:
    """Measure the plaque of a mask, one lesion's or a whole scan's.

    Agatston et al. (1990): in every axial slice each connected region of at least 130 HU and 1 mm² counts its area in
    mm² times 1, 2, 3 or 4, as its peak stays below 200, 300, 400 HU or not. The score was defined on slices of 3 mm,
    so a thinner slice counts in proportion. It was also defined without contrast agent: on a CCTA it compares plaques
    with plaques (real with synthetic, true with predicted), and says nothing about a patient's risk.
    """
    x_mm, y_mm, z_mm = spacing_mm
    is_calcium = mask & (hu >= CALCIUM_HU)
    score = 0.0
    for index in np.flatnonzero(is_calcium.any(axis=(0, 1))):
        regions, count = ndimage.label(is_calcium[:, :, index], structure=np.ones((3, 3)))
        numbers = np.arange(1, count + 1)
        areas_mm2 = ndimage.sum_labels(regions > 0, regions, numbers) * x_mm * y_mm
        peaks_hu = ndimage.maximum(hu[:, :, index], regions, numbers)
        weights = 1 + np.searchsorted(_DENSITY_STEPS_HU, peaks_hu, side="right")
        # rounding must not decide over a region of exactly 1 mm²
        score += float((areas_mm2 * weights)[areas_mm2 >= MIN_AREA_MM2 - 1e-9].sum()) * z_mm / SLICE_MM
    voxel_mm3 = math.prod(spacing_mm)
    return PlaqueBurden(
        agatston=score, volume_mm3=int(mask.sum()) * voxel_mm3, calcium_mm3=int(is_calcium.sum()) * voxel_mm3
    )
