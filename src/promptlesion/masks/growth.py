"""A shape grown in its host, and in fat beside it, until its mask has the asked-for volume."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from promptlesion.data.boxes import Box, box_around, offsets_mm, voxel_mm3
from promptlesion.data.volume import Volume
from promptlesion.masks.shape import Shape

MIN_GROWTH, MAX_GROWTH = 0.4, 2.5
_BISECTIONS = 10
_SEARCH_VOXELS = 12
_FAT_HU = (-200.0, -30.0)
_BORDER_MM = 1.0
"""Between a host and its fat: partial volume, and outlines drawn a little too tight."""


@dataclass(frozen=True, eq=False)
class Site:
    """Where in a scan a mask is drawn, and how large."""

    labels: Volume
    is_host: Bool[np.ndarray, "256"]
    """By label value."""
    is_lumen: Bool[np.ndarray, "256"]
    """By label value, what a crescent lies against."""
    voxel: tuple[int, int, int]
    """Of the host, in the middle of what is drawn."""
    diameter_mm: float
    """Of the sphere of the asked-for volume."""
    max_extent_mm: float
    """Nothing farther from the voxel than that is looked at; a vessel is followed half as far each way."""
    image: Volume | None = None
    """The scan in HU, where a mask may reach into the fat beside its host; without one it may not."""

    @property
    def target_voxels(self) -> float:
        """The asked-for volume, in voxels of the scan."""
        return float(np.pi / 6 * self.diameter_mm**3 / voxel_mm3(self.labels))


@dataclass(frozen=True)
class GrownMask:
    """A mask in a box of the scan, what kind of shape it came from, and the HU that came with a lesion cut whole."""

    box: Box
    mask: Bool[np.ndarray, "x y z"]
    origin: str = ""
    hu: Float32[np.ndarray, "x y z"] | None = None
    """Inside the mask; 0 outside."""


def grow_shape(shape: Shape, site: Site, origin: str, highest: float = MAX_GROWTH) -> GrownMask:
    """Clip a shape to where it may be, at the least size at which the clipped mask has the asked-for volume.

    The deformation may have made it larger than its sphere, the host may have cut much of it off. It grows up to the
    level `highest`; where that is not enough the mask stays smaller than asked for.
    """
    labels, voxel, diameter_mm = site.labels, site.voxel, site.diameter_mm

    def field_in(part: Box) -> Float[np.ndarray, "x y z"]:
        """Return the shape's scalar field, infinite where there is no room for it."""
        room = room_in(part, site)
        field = np.full(room.shape, np.inf)
        field[room] = shape.radius_ratio(offsets_mm(part, voxel, labels.affine)[room], radius_mm=diameter_mm / 2)
        return field

    box = box_around(voxel, labels, min(MAX_GROWTH * diameter_mm, site.max_extent_mm))
    # a large lesion's size is found on a coarser grid through its origin, then its mask is drawn on the scan's own
    strides = [max(1, int(diameter_mm / (_SEARCH_VOXELS * side))) for side in labels.spacing_mm]
    x, y, z = (slice(s.start + (c - s.start) % n, s.stop, n) for s, c, n in zip(box, voxel, strides, strict=True))
    coarse: Box = (x, y, z)
    target_voxels = site.target_voxels / np.prod(strides)
    level, mask = grow_field(field_in(coarse), _within(voxel, coarse), target_voxels=target_voxels, highest=highest)
    if max(strides) == 1:
        return GrownMask(box, mask, origin)
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    x, y, z = (
        slice(max(b.start, b.start + (f.start - 1) * n), min(b.stop, b.start + f.stop * n))
        for b, f, n in zip(coarse, found, strides, strict=True)
    )
    fine: Box = (x, y, z)
    return GrownMask(fine, _component(field_in(fine) < level, _within(voxel, fine)), origin)


def grow_field(
    field: Float[np.ndarray, "x y z"],
    voxel: tuple[int, int, int],
    *,
    target_voxels: float,
    highest: float = MAX_GROWTH,
) -> tuple[float, Bool[np.ndarray, "x y z"]]:
    """Return the lowest level at which the part of a field that holds a voxel is large enough, and that part.

    Where no level is, the highest one and what it holds. Where there is no room the field is infinite.
    """
    low, high = MIN_GROWTH, highest
    mask = _component(field < high, voxel)
    if mask.sum() >= target_voxels:
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            smaller = _component(field < middle, voxel)
            if smaller.sum() >= target_voxels:
                high, mask = middle, smaller
            else:
                low = middle
    return high, mask


def room_in(box: Box, site: Site) -> Bool[np.ndarray, "x y z"]:
    """Return where a lesion may be in a box: in its host; with an image in unlabelled fat and the border too.

    Fat is told from noise and from the thin shells of its HU around gas by a mean over 3³ voxels and an opening.
    """
    labels, image = site.labels, site.image
    inside: np.ndarray = site.is_host[labels.array[box]]
    if image is None:
        return inside
    x, y, z = (slice(side.start, side.stop) for side in box)
    hu = ndimage.uniform_filter(image.array[x, y, z].astype(np.float32), 3)
    is_free = labels.array[x, y, z] == 0
    fat = ndimage.binary_opening(is_free & (hu >= _FAT_HU[0]) & (hu <= _FAT_HU[1]))
    x, y, z = (slice(None, None, side.step) for side in box)
    fat, is_free = fat[x, y, z], is_free[x, y, z]
    if not fat.any() or not inside.any():
        return inside
    steps_mm = [mm * (side.step or 1) for mm, side in zip(labels.spacing_mm, box, strict=True)]
    reach_mm = max(_BORDER_MM, *steps_mm)
    from_host_mm, from_fat_mm = (ndimage.distance_transform_edt(~part, sampling=steps_mm) for part in (inside, fat))
    return np.asarray(inside | fat | (is_free & (from_host_mm <= reach_mm) & (from_fat_mm <= reach_mm)))


def _component(mask: Bool[np.ndarray, "x y z"], voxel: tuple[int, int, int]) -> Bool[np.ndarray, "x y z"]:
    """Return the connected part of the mask that holds the voxel; the voxel alone if the mask misses it."""
    components, _ = ndimage.label(mask)
    part: np.ndarray = components == components[voxel] if mask[voxel] else np.zeros_like(mask)
    part[voxel] = True
    return part


def _within(voxel: tuple[int, int, int], box: Box) -> tuple[int, int, int]:
    x, y, z = ((c - side.start) // (side.step or 1) for c, side in zip(voxel, box, strict=True))
    return x, y, z
