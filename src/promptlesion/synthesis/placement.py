"""Where a lesion goes: inside its host, off other lesions, off the scan's edge, as large as asked for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.spec import LesionType
from promptlesion.data.volume import Volume
from promptlesion.synthesis.shape import DeformedEllipsoid, draw_ellipsoid

Box = tuple[slice, slice, slice]

_MAX_TRIES = 40
_MIN_GROWTH, _MAX_GROWTH = 0.4, 2.5
_BISECTIONS = 8
_MIN_VOXELS = 4
_SEARCH_VOXELS = 16
_SPARSE = 4


class PlacementError(ValueError):
    """A host cannot take the lesion that was asked for; the message says why."""


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion mask on the scan's grid, within a box that leaves room for the blended edge."""

    type_index: int
    box: Box
    mask: Bool[np.ndarray, "x y z"]
    diameter_mm: float
    mask_origin: str = "ellipsoid"

    @property
    def center_voxel(self) -> tuple[int, int, int]:
        """The voxel of the scan nearest to the mask's centroid."""
        centroid = np.argwhere(self.mask).mean(axis=0)
        x, y, z = (round(float(c)) + side.start for c, side in zip(centroid, self.box, strict=True))
        return x, y, z


def place_lesion(
    labels: Volume,
    dataset: Dataset,
    type_index: int,
    *,
    generator: np.random.Generator,
    edge_mm: float,
    deformation: float,
    max_extent_mm: float,
    others: Sequence[PlacedLesion] = (),
) -> PlacedLesion:
    """Draw a lesion of a type and a place for it.

    The diameter is that of the sphere of the volume that is left inside the host: in a thin wall the ellipsoid grows
    along it until the asked-for volume is reached.

    Args:
        labels: label map of the scan.
        dataset: lesion types, hosts and label values.
        type_index: the asked-for type, in prompt order.
        generator: of every draw.
        edge_mm: width of the blended edge; lesions keep twice that apart, and off the scan's edge.
        deformation: of the ellipsoid's surface.
        max_extent_mm: the largest extent of the mask along an axis.
        others: lesions placed in this scan already.

    Raises:
        PlacementError: no place was found; the message counts the reasons.
    """
    lesion_type = dataset.spec.lesions[type_index]
    is_host = np.isin(labels.array, dataset.host_labels(lesion_type))
    if not is_host.any():
        raise PlacementError(
            f"{lesion_type.name}: expected voxels of its host ({', '.join(lesion_type.host)}); found none"
        )
    reasons: Counter[str] = Counter()
    candidates = _far_from_lesions(is_host, labels, dataset, others, 2 * edge_mm + lesion_type.diameter_mm[0] / 4)
    if not len(candidates):
        raise PlacementError(
            f"{lesion_type.name}: found no place in {', '.join(lesion_type.host)}: all of it is too near other lesions"
        )
    for _ in range(_MAX_TRIES):
        center = np.array(np.unravel_index(generator.choice(candidates), labels.shape))
        diameter_mm = float(np.exp(generator.uniform(*np.log(lesion_type.diameter_mm))))
        ellipsoid = draw_ellipsoid(generator, deformation=deformation)
        box = _box_around(center, labels, min(_MAX_GROWTH * diameter_mm, max_extent_mm))
        mask = _grown_into_host(ellipsoid, diameter_mm, center, box, is_host[box], labels.affine)
        reason = _why_not(mask, box, labels, dataset, lesion_type, edge_mm, max_extent_mm, others)
        if reason is None:
            tight = _tight_box(mask, box, labels, edge_mm)
            return PlacedLesion(type_index, tight, _in_box(mask, box, tight), _diameter_mm(mask, labels))
        reasons[reason] += 1
    counted = ", ".join(f"{reason} ({count} times)" for reason, count in reasons.most_common())
    raise PlacementError(
        f"{lesion_type.name}: found no place in {', '.join(lesion_type.host)} after {_MAX_TRIES} tries: {counted}"
    )


def offsets_mm(box: Box, center_voxel: np.ndarray, affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "x y z 3"]:
    """Return the vector in millimetres from a voxel to every voxel of a box."""
    index = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), axis=-1)
    offsets: np.ndarray = (index - center_voxel) @ affine[:3, :3].T
    return offsets


def _box_around(center: np.ndarray, volume: Volume, reach_mm: float) -> Box:
    reach = np.ceil(reach_mm / np.array(volume.spacing_mm)).astype(int)
    x, y, z = (
        slice(max(0, int(c - r)), min(n, int(c + r) + 1)) for c, r, n in zip(center, reach, volume.shape, strict=True)
    )
    return x, y, z


def _tight_box(mask: Bool[np.ndarray, "x y z"], box: Box, volume: Volume, edge_mm: float) -> Box:
    """Return the box around the mask and its blended edge, on the scan's grid."""
    margin = np.ceil(edge_mm / np.array(volume.spacing_mm)).astype(int)
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    x, y, z = (
        slice(max(0, b.start + f.start - int(m)), min(n, b.start + f.stop + int(m)))
        for b, f, m, n in zip(box, found, margin, volume.shape, strict=True)
    )
    return x, y, z


def _grown_into_host(
    ellipsoid: DeformedEllipsoid,
    diameter_mm: float,
    center: np.ndarray,
    box: Box,
    is_host: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
) -> Bool[np.ndarray, "x y z"]:
    """Clip the ellipsoid to its host, at the least size at which the clipped mask has the asked-for volume.

    The deformation may have made it larger than its sphere, the host may have cut much of it off.
    """
    local_center = tuple(int(c) - side.start for c, side in zip(center, box, strict=True))
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    # a large lesion's size is found on a coarser grid through its centre, then its mask is drawn on the scan's own
    strides = np.maximum(1, diameter_mm / (_SEARCH_VOXELS * spacing_mm)).astype(int)
    coarse = tuple(slice(int(c % n), None, int(n)) for c, n in zip(local_center, strides, strict=True))
    coarse_center = tuple(int(c // n) for c, n in zip(local_center, strides, strict=True))
    target_voxels = np.pi / 6 * diameter_mm**3 / _voxel_mm3(affine) / strides.prod()
    offset_mm = offsets_mm(box, center, affine)
    ratio = ellipsoid.radius_ratio(offset_mm[coarse], radius_mm=diameter_mm / 2)
    low, high = _MIN_GROWTH, _MAX_GROWTH
    if _component((ratio < high) & is_host[coarse], coarse_center).sum() >= target_voxels:
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            is_enough = _component((ratio < middle) & is_host[coarse], coarse_center).sum() >= target_voxels
            low, high = (low, middle) if is_enough else (middle, high)
    if strides.prod() > 1:
        ratio = ellipsoid.radius_ratio(offset_mm, radius_mm=diameter_mm / 2)
    return _component((ratio < high) & is_host, local_center)


def _far_from_lesions(
    is_host: Bool[np.ndarray, "x y z"],
    labels: Volume,
    dataset: Dataset,
    others: Sequence[PlacedLesion],
    distance_mm: float,
) -> Int[np.ndarray, " candidate"]:
    """Return the flat indices of host voxels that are not hopelessly near a lesion, judged on every fourth voxel."""
    occupied = np.isin(labels.array[::_SPARSE, ::_SPARSE, ::_SPARSE], dataset.lesion_labels)
    for other in others:
        x, y, z = (int(c) // _SPARSE for c in other.center_voxel)
        occupied[min(x, occupied.shape[0] - 1), min(y, occupied.shape[1] - 1), min(z, occupied.shape[2] - 1)] = True
    candidates: np.ndarray = np.flatnonzero(is_host)
    if not occupied.any():
        return candidates
    sampling = tuple(_SPARSE * side for side in labels.spacing_mm)
    is_far = ndimage.distance_transform_edt(~occupied, sampling=sampling) > distance_mm
    index = np.unravel_index(candidates, labels.shape)
    kept: np.ndarray = candidates[is_far[tuple(axis // _SPARSE for axis in index)]]
    return kept


def _component(mask: Bool[np.ndarray, "x y z"], voxel: tuple[int, ...]) -> Bool[np.ndarray, "x y z"]:
    """Return the connected part of the mask that holds the voxel; the voxel alone if the mask misses it."""
    components, _ = ndimage.label(mask)
    part: np.ndarray = components == components[voxel] if mask[voxel] else np.zeros_like(mask)
    part[voxel] = True
    return part


def _diameter_mm(mask: Bool[np.ndarray, "x y z"], volume: Volume) -> float:
    return sphere_diameter_mm(float(mask.sum()) * _voxel_mm3(volume.affine))


def _voxel_mm3(affine: Float[np.ndarray, "4 4"]) -> float:
    return abs(float(np.linalg.det(affine[:3, :3])))


def _why_not(
    mask: Bool[np.ndarray, "x y z"],
    box: Box,
    labels: Volume,
    dataset: Dataset,
    lesion_type: LesionType,
    edge_mm: float,
    max_extent_mm: float,
    others: Sequence[PlacedLesion],
) -> str | None:
    """Return why a mask cannot stay where it is, or nothing."""
    smallest_mm, largest_mm = lesion_type.diameter_mm
    if mask.sum() < _MIN_VOXELS or _diameter_mm(mask, labels) < smallest_mm:
        return "too little of the host around it"
    if _diameter_mm(mask, labels) > largest_mm:
        return "a voxel more than its type allows"
    edge_voxels = np.ceil(edge_mm / np.array(labels.spacing_mm)).astype(int)
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    for side, extent, margin, length, spacing in zip(
        box, found, edge_voxels, labels.shape, labels.spacing_mm, strict=True
    ):
        if side.start + extent.start < margin or side.start + extent.stop > length - margin:
            return "too near the edge of the scan"
        if (extent.stop - extent.start) * spacing > max_extent_mm:
            return "larger than the model's patch allows"
    near = _tight_box(mask, box, labels, 2 * edge_mm)
    occupied = np.isin(labels.array[near], dataset.lesion_labels)
    for other in others:
        occupied |= _in_box(other.mask, other.box, near)
    if occupied.any():
        distance = ndimage.distance_transform_edt(~occupied, sampling=labels.spacing_mm)
        if distance[_in_box(mask, box, near)].min() <= 2 * edge_mm:
            return "too near another lesion"
    return None


def _in_box(mask: Bool[np.ndarray, "x y z"], box: Box, other: Box) -> Bool[np.ndarray, "i j k"]:
    """Return the mask of a box as another box of the same scan sees it."""
    seen = np.zeros(tuple(side.stop - side.start for side in other), dtype=bool)
    shared = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True)]
    if all(start < stop for start, stop in shared):
        there = tuple(slice(s - o.start, e - o.start) for (s, e), o in zip(shared, other, strict=True))
        here = tuple(slice(s - b.start, e - b.start) for (s, e), b in zip(shared, box, strict=True))
        seen[there] = mask[here]
    return seen


def paint_labels(labels: UInt8[np.ndarray, "x y z"], lesion: PlacedLesion, label: int) -> None:
    """Write a lesion over its host, in place; every other voxel keeps its label."""
    labels[lesion.box][lesion.mask] = label
