"""Single lesions in a label map: where each lies and how large it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from promptlesion.data.boxes import Box, in_box

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
    lesion_labels: Sequence[int],
    spacing_mm: tuple[float, float, float],
) -> list[LesionInstance]:
    """All lesions of these types: 26-connected components, by type in prompt order, then in voxel order."""
    lesions = []
    for type_index, label in enumerate(lesion_labels):
        mask = labels == label
        for region in ndimage.find_objects(mask.view(np.uint8)):
            components, _ = ndimage.label(mask[region], structure=ALL_26_NEIGHBOURS)
            for number, box in enumerate(ndimage.find_objects(components), start=1):
                x, y, z = (
                    slice(outer.start + inner.start, outer.start + inner.stop)
                    for outer, inner in zip(region, box, strict=True)
                )
                lesions.append(_describe(type_index, components[box] == number, (x, y, z), spacing_mm))
    return lesions


def cut_instance(
    labels: UInt8[np.ndarray, "x y z"], instance: LesionInstance, label: int, *, margin_voxels: tuple[int, int, int]
) -> tuple[Box, Bool[np.ndarray, "i j k"]]:
    """Return the box around a lesion with a margin, less of it at the scan's edge, and in it this lesion's mask alone.

    `label` is its type's value in the label map that it was found in.
    """
    box = instance.bounding_box
    x, y, z = (
        slice(max(side.start - margin, 0), min(side.stop + margin, length))
        for side, margin, length in zip(box, margin_voxels, labels.shape, strict=True)
    )
    components, _ = ndimage.label(labels[box] == label, structure=ALL_26_NEIGHBOURS)
    center = tuple(at - side.start for at, side in zip(instance.center_voxel, box, strict=True))
    return (x, y, z), in_box(components == components[center], box, (x, y, z))


def _describe(
    type_index: int, mask: Bool[np.ndarray, "x y z"], box: Box, spacing_mm: tuple[float, float, float]
) -> LesionInstance:
    """Measure the lesion that is the mask in its bounding box."""
    voxels = np.argwhere(mask) + [side.start for side in box]
    distances = np.linalg.norm((voxels - voxels.mean(axis=0)) * np.array(spacing_mm), axis=1)
    x, y, z = (int(index) for index in voxels[int(distances.argmin())])
    volume_mm3 = len(voxels) * math.prod(spacing_mm)
    return LesionInstance(type_index, box, (x, y, z), len(voxels), volume_mm3, sphere_diameter_mm(volume_mm3))
