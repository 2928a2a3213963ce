"""Single lesions in a label map: where each lies and how large it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from promptlesion.data.boxes import Box
from promptlesion.data.spec import LesionType

ALL_26_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class LesionInstance:
    """One connected lesion of one type.

    `type_index` counts in prompt order; `center_voxel` is the lesion's own voxel nearest to its centroid, so
    it lies inside even a crescent; `diameter_mm` is that of the sphere of equal volume.
    """

    type_index: int
    bounding_box: Box
    center_voxel: tuple[int, int, int]
    num_voxels: int
    volume_mm3: float
    diameter_mm: float


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere of this volume."""
    return math.cbrt(6.0 * volume_mm3 / math.pi)


def find_lesions(
    labels: UInt8[np.ndarray, "x y z"],
    lesion_types: Sequence[LesionType],
    spacing_mm: tuple[float, float, float],
) -> list[LesionInstance]:
    """All lesions of these types: 26-connected components, by type in prompt order, then in voxel order."""
    lesions = []
    for type_index, lesion_type in enumerate(lesion_types):
        mask = labels == lesion_type.label
        if not mask.any():
            continue
        region = _bounding_box(mask)
        components, _ = ndimage.label(mask[region], structure=ALL_26_NEIGHBOURS)
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            voxels = np.argwhere(components[box] == number)
            offset = np.array([outer.start + inner.start for outer, inner in zip(region, box, strict=True)])
            lesions.append(_describe(type_index, voxels + offset, spacing_mm))
    return lesions


def cut_instance(
    labels: UInt8[np.ndarray, "x y z"], instance: LesionInstance, label: int, *, margin_voxels: tuple[int, int, int]
) -> tuple[Box, Bool[np.ndarray, "i j k"]]:
    """Return the box around a lesion with a margin, less of it at the scan's edge, and in it this lesion's mask alone.

    Args:
        labels: the label map the lesion was found in.
        instance: the lesion.
        label: its type's value in the label map.
        margin_voxels: around its bounding box, along each axis.
    """
    x, y, z = (
        slice(max(side.start - margin, 0), min(side.stop + margin, length))
        for side, margin, length in zip(instance.bounding_box, margin_voxels, labels.shape, strict=True)
    )
    components, _ = ndimage.label(labels[instance.bounding_box] == label, structure=ALL_26_NEIGHBOURS)
    center = tuple(at - side.start for at, side in zip(instance.center_voxel, instance.bounding_box, strict=True))
    mask = np.zeros([side.stop - side.start for side in (x, y, z)], dtype=bool)
    inner = tuple(
        slice(side.start - outer.start, side.stop - outer.start)
        for side, outer in zip(instance.bounding_box, (x, y, z), strict=True)
    )
    mask[inner] = components == components[center]
    return (x, y, z), mask


def _bounding_box(mask: Bool[np.ndarray, "x y z"]) -> Box:
    x, y, z = (np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1)))
    return (
        slice(int(x[0]), int(x[-1]) + 1),
        slice(int(y[0]), int(y[-1]) + 1),
        slice(int(z[0]), int(z[-1]) + 1),
    )


def _describe(type_index: int, voxels: np.ndarray, spacing_mm: tuple[float, float, float]) -> LesionInstance:
    low, high = voxels.min(axis=0), voxels.max(axis=0) + 1
    distances = np.linalg.norm((voxels - voxels.mean(axis=0)) * np.array(spacing_mm), axis=1)
    x, y, z = (int(index) for index in voxels[int(distances.argmin())])
    volume_mm3 = len(voxels) * math.prod(spacing_mm)
    return LesionInstance(
        type_index=type_index,
        bounding_box=(
            slice(int(low[0]), int(high[0])),
            slice(int(low[1]), int(high[1])),
            slice(int(low[2]), int(high[2])),
        ),
        center_voxel=(x, y, z),
        num_voxels=len(voxels),
        volume_mm3=volume_mm3,
        diameter_mm=sphere_diameter_mm(volume_mm3),
    )
