"""Surface Dice and HD95 of two masks, by surface elements weighted with their area.

One definition of a surface for both, that of Nikolov et al. 2018 (arXiv:1809.04430), which DeepMind's
`surface-distance` and MONAI's surface Dice with `use_subvoxels` share: an element at every corner of the voxel grid
whose eight voxels are not all alike, its area from a table by which of the eight lie inside. Elements are counted by
area, so anisotropic voxels do not weigh one side of a lesion more than another; outside the array is outside the mask.
(MONAI's own HD95 counts voxels at the rim instead, and differs by up to a voxel.)
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from monai.metrics.utils import get_code_to_measure_table
from scipy.spatial import KDTree

_ALL_EIGHT_INSIDE = 255


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface elements of a mask: where they lie, in mm from the array's corner, and their areas."""

    points_mm: Float64[np.ndarray, "elements 3"]
    areas_mm2: Float64[np.ndarray, " elements"]


def find_surface(mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> Surface:
    """Find the surface elements of a mask."""
    areas, bits = _measure_table(spacing_mm)
    padded = np.pad(mask, 1).view(np.uint8)
    sides = [length + 1 for length in mask.shape]
    codes = np.zeros(sides, dtype=np.uint8)
    for (i, j, k), bit in np.ndenumerate(bits):
        codes |= padded[i : i + sides[0], j : j + sides[1], k : k + sides[2]] * bit
    corners = np.flatnonzero((codes > 0) & (codes < _ALL_EIGHT_INSIDE))
    voxels = np.stack(np.unravel_index(corners, codes.shape), axis=1)
    return Surface(points_mm=voxels * np.array(spacing_mm), areas_mm2=areas[codes.ravel()[corners]])


def surface_scores(prediction: Surface, truth: Surface, *, tolerance_mm: float) -> tuple[float, float]:
    """Return the surface Dice within the tolerance, and HD95 in mm; neither surface may be empty.

    Surface Dice is the share of both surfaces' area that lies within the tolerance of the other surface; HD95 the
    larger of the two distances, one each way, that 95 % of a surface's area keep within.
    """
    there, _ = KDTree(truth.points_mm).query(prediction.points_mm)
    back, _ = KDTree(prediction.points_mm).query(truth.points_mm)
    # A distance of 3 x 0.7 mm is 2.1 mm, whatever the last bit says.
    limit = tolerance_mm * (1 + 1e-9)
    close = prediction.areas_mm2[there <= limit].sum() + truth.areas_mm2[back <= limit].sum()
    surface_dice = float(close / (prediction.areas_mm2.sum() + truth.areas_mm2.sum()))
    hd95_mm = max(_area_percentile(there, prediction.areas_mm2, 0.95), _area_percentile(back, truth.areas_mm2, 0.95))
    return surface_dice, hd95_mm


def _area_percentile(
    distances_mm: Float64[np.ndarray, " elements"], areas_mm2: Float64[np.ndarray, " elements"], share: float
) -> float:
    """Return the smallest distance that this share of the area keeps within."""
    order = np.argsort(distances_mm, kind="stable")
    covered = np.cumsum(areas_mm2[order])
    index = int(np.searchsorted(covered, share * covered[-1]))
    return float(distances_mm[order[min(index, len(order) - 1)]])


@lru_cache
def _measure_table(
    spacing_mm: tuple[float, float, float],
) -> tuple[Float64[np.ndarray, " codes"], UInt8[np.ndarray, "2 2 2"]]:
    areas, kernel = get_code_to_measure_table(spacing_mm)
    return areas.numpy().astype(np.float64), kernel.numpy().reshape(2, 2, 2).astype(np.uint8)
