"""Where a lesion goes: in its host or bulging out, off other lesions, off the scan's edge, as large as asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from promptlesion.data.boxes import Box, by_label, in_box, tight_box, voxel_mm3
from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.volume import Volume
from promptlesion.masks.clearance import Refusal, Room, in_words
from promptlesion.masks.growth import GrownMask, Site
from promptlesion.masks.sizes_and_shapes import LesionDrawing, draw_diameter_mm, draw_mask

_NUM_SIZES, _TRIES_PER_SIZE, _LOOKS_PER_SIZE = 5, 12, 200
_FIRST_BLOCK, _LARGEST_BLOCK, _MOST_DRAWN = 2**12, 2**18, 2**23


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
    hu: Float32[np.ndarray, "x y z"] | None = None
    """Inside the mask, of a real lesion that was cut with its voxels, brought to this grid; 0 outside."""
    asked: Mapping[str, float] = field(default_factory=dict)
    """What it is to be like, of `ATTRIBUTES`; what is missing is left open."""

    @property
    def center_voxel(self) -> tuple[int, int, int]:
        """The voxel of the scan nearest to the mask's centroid."""
        centroid = np.argwhere(self.mask).mean(axis=0)
        x, y, z = (round(float(c)) + side.start for c, side in zip(centroid, self.box, strict=True))
        return x, y, z

    def widened(self, image: Volume, *, margin_mm: float) -> "PlacedLesion":
        """Return it in a box wider by a margin, less of it at the scan's edge."""
        margins = [int(np.ceil(margin_mm / side)) for side in image.spacing_mm]
        before = [min(margin, side.start) for margin, side in zip(margins, self.box, strict=True)]
        after = [min(m, n - side.stop) for m, n, side in zip(margins, image.shape, self.box, strict=True)]
        x, y, z = (slice(s.start - b, s.stop + a) for s, b, a in zip(self.box, before, after, strict=True))
        padding = list(zip(before, after, strict=True))
        hu = None if self.hu is None else np.pad(self.hu, padding)
        return replace(self, box=(x, y, z), mask=np.pad(self.mask, padding), hu=hu)


def place_lesion(
    labels: Volume,
    dataset: Dataset,
    type_index: int,
    *,
    drawing: LesionDrawing,
    generator: np.random.Generator,
    image: Volume,
    others: Sequence[PlacedLesion] = (),
    at: tuple[int, int, int] | None = None,
) -> PlacedLesion:
    """Draw a lesion of a type and a place for it; what that costs follows the lesion, not the scan.

    A size is tried at several places before another is drawn, so that large lesions come nearly as often as they
    should. The diameter is that of the sphere of the volume that there is room for: in a thin wall a shape grows
    along it until the asked-for volume is reached.

    The scan in HU shows the fat that a type may bulge into. `others` are lesions placed in this scan already, `at` is
    the voxel of the host in the middle of what is drawn, by default any.

    Raises:
        PlacementError: no place was found; the message counts the reasons, each with the figure that came nearest.
    """
    lesion_type = dataset.spec.lesions[type_index]
    is_host, where = by_label(dataset.host_labels(lesion_type)), ", ".join(lesion_type.host)
    is_lumen = by_label(dataset.lumen_labels(lesion_type))
    there = [GrownMask(other.box, other.mask) for other in others]
    edge_mm, extent_mm = drawing.edge_mm, drawing.max_extent_mm
    room = Room(labels, by_label(dataset.lesion_labels), there, edge_mm, extent_mm, dataset.ignored_label)
    refusals: list[Refusal] = []
    if at is not None and not is_host[labels.array[at]]:
        raise PlacementError(f"{lesion_type.name}: expected a voxel of its host ({where}) at {at}; found another label")
    voxels = _host_voxels(labels.array, is_host, generator) if at is None else repeat(at)
    for _ in range(_NUM_SIZES):
        diameter_mm = draw_diameter_mm(drawing, lesion_type, generator)
        num_tries = 0
        for voxel in islice(voxels, _LOOKS_PER_SIZE):
            found: GrownMask | Refusal | None = room.why_not_at(voxel, diameter_mm=diameter_mm)
            if found is None:
                num_tries += 1
                site = Site(labels, is_host, is_lumen, voxel, diameter_mm, extent_mm, image)
                found = draw_mask(drawing, lesion_type, site, generator)
            if isinstance(found, GrownMask):
                refusal = room.why_not(found, diameter_mm=diameter_mm, allowed_mm=lesion_type.diameter_mm)
                if refusal is None:
                    return _placed(type_index, found, labels, edge_mm)
                found = refusal
            refusals.append(found)
            if num_tries == _TRIES_PER_SIZE:
                break
    if not refusals:
        raise PlacementError(f"{lesion_type.name}: expected voxels of its host ({where}); found none")
    raise PlacementError(
        f"{lesion_type.name}: found no place in {where}, looked at {len(refusals)}: {in_words(refusals)}"
    )


def place_mask(
    mask: Bool[np.ndarray, "x y z"],
    labels: Volume,
    dataset: Dataset,
    type_index: int,
    *,
    edge_mm: float,
    max_extent_mm: float,
) -> PlacedLesion:
    """Take a mask on the scan's grid as it is, wherever it lies.

    Raises:
        PlacementError: it is empty, too large for the method, or covers a lesion or voxels that nobody labelled.
    """
    name = dataset.spec.lesions[type_index].name
    if not mask.any():
        raise PlacementError(f"{name}: expected a mask of at least one voxel; found an empty one")
    whole = (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2]))
    tight = tight_box(mask, whole, labels, 0.0)
    extent_mm = max((side.stop - side.start) * mm for side, mm in zip(tight, labels.spacing_mm, strict=True))
    if extent_mm > max_extent_mm:
        raise PlacementError(
            f"{name}: expected a mask of at most {max_extent_mm:.1f} mm along an axis, which the model's patch takes; "
            f"found {extent_mm:.1f} mm"
        )
    kept = (*dataset.lesion_labels, *([] if dataset.ignored_label is None else [dataset.ignored_label]))
    num_covered = int(by_label(kept)[labels.array[mask]].sum())
    if num_covered:
        raise PlacementError(f"{name}: expected a mask off the lesions there are; found {num_covered} voxels of theirs")
    return _placed(type_index, GrownMask(whole, mask, "given"), labels, edge_mm)


def paint_labels(labels: UInt8[np.ndarray, "x y z"], lesion: PlacedLesion, label: int) -> None:
    """Write a lesion over what is there, in place; every other voxel keeps its label."""
    labels[lesion.box][lesion.mask] = label


def _placed(type_index: int, grown: GrownMask, labels: Volume, edge_mm: float) -> PlacedLesion:
    box = tight_box(grown.mask, grown.box, labels, edge_mm)
    diameter_mm = sphere_diameter_mm(float(grown.mask.sum()) * voxel_mm3(labels))
    hu = None if grown.hu is None else in_box(grown.hu, grown.box, box)
    return PlacedLesion(type_index, box, in_box(grown.mask, grown.box, box), diameter_mm, grown.origin, hu)


def _host_voxels(
    labels: UInt8[np.ndarray, "x y z"], is_host: Bool[np.ndarray, "256"], generator: np.random.Generator
) -> Iterator[tuple[int, int, int]]:
    """Yield voxels of the host, each as likely as another, looking at the whole scan only where the host is tiny.

    Voxels of the scan are drawn until some lie in the host; where eight million draws miss it, it is listed.
    """
    block, num_drawn, is_found = _FIRST_BLOCK, 0, False
    while is_found or num_drawn < _MOST_DRAWN:
        drawn = np.unravel_index(generator.integers(labels.size, size=block), labels.shape)
        (inside,) = np.nonzero(is_host[labels[drawn]])
        for x, y, z in zip(*(axis[inside].tolist() for axis in drawn), strict=True):
            is_found = True
            yield x, y, z
        num_drawn += block
        block = min(2 * block, _LARGEST_BLOCK)
    listed = np.concatenate(
        [np.insert(np.argwhere(is_host[plane]), 0, x, axis=1) for x, plane in enumerate(labels)], axis=0
    )
    while len(listed):
        x, y, z = listed[int(generator.integers(len(listed)))].tolist()
        yield x, y, z
