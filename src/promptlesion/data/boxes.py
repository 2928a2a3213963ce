"""Boxes of a scan's grid: the part around a voxel or a mask, and what another box sees of it."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from promptlesion.data.crops import crop
from promptlesion.data.volume import Volume

Box = tuple[slice, slice, slice]
"""A part of a scan's grid."""


def box_around(voxel: tuple[int, int, int], volume: Volume, reach_mm: float) -> Box:
    """Return the box that reaches as far from a voxel along every axis, less at the scan's edge."""
    reach = [int(np.ceil(reach_mm / side)) for side in volume.spacing_mm]
    x, y, z = (slice(max(0, c - r), min(n, c + r + 1)) for c, r, n in zip(voxel, reach, volume.shape, strict=True))
    return x, y, z


def tight_box(mask: Bool[np.ndarray, "x y z"], box: Box, volume: Volume, margin_mm: float) -> Box:
    """Return the box around a mask with a margin, on the scan's grid, less of it at the scan's edge."""
    margin = [int(np.ceil(margin_mm / side)) for side in volume.spacing_mm]
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    x, y, z = (
        slice(max(0, b.start + f.start - m), min(n, b.start + f.stop + m))
        for b, f, m, n in zip(box, found, margin, volume.shape, strict=True)
    )
    return x, y, z


def in_box(array: Shaped[np.ndarray, "x y z"], box: Box, other: Box) -> Shaped[np.ndarray, "i j k"]:
    """Return a mask, or another array of a box, as another box of the same scan sees it; beyond it is 0."""
    i, j, k = (theirs.start - own.start for own, theirs in zip(box, other, strict=True))
    x, y, z = (side.stop - side.start for side in other)
    return crop(array, (i, j, k), (x, y, z), fill=0)


def offsets_mm(
    box: Box, center_voxel: tuple[int, int, int], affine: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "x y z 3"]:
    """Return the vector in millimetres from a voxel to every voxel of a box; a slice may have a step."""
    axes = (np.arange(s.start, s.stop, s.step) - c for s, c in zip(box, center_voxel, strict=True))
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return np.asarray(index @ affine[:3, :3].T)


def voxel_mm3(volume: Volume) -> float:
    """Return the volume of a voxel."""
    return abs(float(np.linalg.det(volume.affine[:3, :3])))


def by_label(labels: tuple[int, ...]) -> Bool[np.ndarray, "256"]:
    """Return for every label value whether it is one of these; indexing it with a label map is a fast `isin`."""
    table = np.zeros(256, dtype=bool)
    table[list(labels)] = True
    return table
