"""Cut-outs of a cohort's lesions, before and after, for the contact sheet."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from promptlesion.data.case_check import check_same_grid
from promptlesion.data.dataset import Dataset, DatasetError, read_case
from promptlesion.data.lesion_instances import LesionInstance, cut_instance, find_lesions
from promptlesion.data.provenance import read_provenance
from promptlesion.data.volume import Volume

_SMALLEST_FIELD_MM = 24.0
_FIELD_PER_EXTENT = 2.2
_THICK_SLICES = 1.2


@dataclass(frozen=True)
class ListedLesion:
    """A lesion as `provenance.jsonl` tells of it; the centre is in world millimetres, RAS+."""

    case: str
    source: str
    lesion_type: str
    center_mm: tuple[float, float, float]
    diameter_mm: float
    mean_hu: float
    mask_origin: str


@dataclass(frozen=True, eq=False)
class Tile:
    """A lesion's slice before and after, upright: rows from the top, columns from the viewer's left."""

    lesion: ListedLesion
    before: Float32[np.ndarray, "row column"]
    after: Float32[np.ndarray, "row column"]
    mask: Bool[np.ndarray, "row column"]
    pixel_mm: tuple[float, float]
    """Height and width of a pixel."""
    corner_mm: tuple[float, float]
    """Where the crop's top left corner lies in the field, downwards and to the right; beyond the scan it is black."""
    field_mm: float


def listed_lesions(synthetic: Dataset) -> list[ListedLesion]:
    """Return the lesions that a cohort's provenance says were painted, in its order."""
    lines = read_provenance(synthetic.root)
    if not lines:
        raise DatasetError(f"{synthetic.root}: expected the provenance.jsonl of a synthetic dataset, found none")
    return [
        ListedLesion(
            case=case,
            source=str(line["source"]),
            lesion_type=str(lesion["type"]),
            center_mm=(float(lesion["center_mm"][0]), float(lesion["center_mm"][1]), float(lesion["center_mm"][2])),
            diameter_mm=float(lesion["diameter_mm"]),
            mean_hu=float(lesion["mean_hu"]),
            mask_origin=str(lesion["mask_origin"]),
        )
        for case, line in lines.items()
        for lesion in line["lesions"]
        if lesion["is_accepted"]
    ]


def choose_evenly(lesions: Sequence[ListedLesion], types: Sequence[str], max_lesions: int) -> list[ListedLesion]:
    """Choose lesions in equal steps along the list, as many of each type as its share asks for, one at least."""
    if len(lesions) <= max_lesions:
        return list(lesions)
    kept: set[int] = set()
    members = {name: [index for index, one in enumerate(lesions) if one.lesion_type == name] for name in types}
    quotas = {name: max(1, len(found) * max_lesions // len(lesions)) for name, found in members.items() if found}
    while sum(quotas.values()) > max(max_lesions, len(quotas)):
        quotas[max(quotas, key=lambda name: quotas[name])] -= 1
    while sum(quotas.values()) < max_lesions:
        quotas[max(quotas, key=lambda name: len(members[name]) / quotas[name])] += 1
    for name, quota in quotas.items():
        steps = (np.arange(quota) + 0.5) * len(members[name]) / quota
        kept.update(members[name][int(step)] for step in steps)
    return [lesions[index] for index in sorted(kept)]


def cut_tiles(source: Dataset, synthetic: Dataset, lesions: Sequence[ListedLesion]) -> Iterator[Tile]:
    """Cut out the lesions of one case."""
    before, old_labels = read_case(source, source.case(lesions[0].source))
    after, labels = read_case(synthetic, synthetic.case(lesions[0].case))
    check_same_grid(lesions[0].case, before, labels)
    new_labels = np.where(labels.array == old_labels.array, np.uint8(0), labels.array)
    instances = find_lesions(new_labels, synthetic.lesion_labels, after.spacing_mm)
    for lesion in lesions:
        yield _tile(lesion, before, after, new_labels, instances, synthetic)


def _tile(
    lesion: ListedLesion,
    before: Volume,
    after: Volume,
    new_labels: UInt8[np.ndarray, "x y z"],
    instances: Sequence[LesionInstance],
    dataset: Dataset,
) -> Tile:
    names = [one.name for one in dataset.spec.lesions]
    of_type = [one for one in instances if names[one.type_index] == lesion.lesion_type]
    if not of_type:
        raise DatasetError(
            f"{lesion.case}: expected a new {lesion.lesion_type} at {lesion.center_mm} mm, found none in its label map"
        )
    instance = min(of_type, key=lambda one: math.dist(_place_mm(after, one.center_voxel), lesion.center_mm))
    box, mask = cut_instance(new_labels, instance, dataset.lesion_labels[instance.type_index], margin_voxels=(0, 0, 0))
    depth_axis = _slice_axis(after)
    across = [axis for axis in range(3) if axis != depth_axis]
    depth = int(mask.sum(axis=tuple(across)).argmax())
    spacing = [after.spacing_mm[axis] for axis in across]
    sides = [box[axis] for axis in across]
    extents_mm = [(side.stop - side.start) * mm for side, mm in zip(sides, spacing, strict=True)]
    field_mm = max(_SMALLEST_FIELD_MM, _FIELD_PER_EXTENT * max(extents_mm))
    windows, starts_mm = [], []
    for side, mm, axis in zip(sides, spacing, across, strict=True):
        length, reach = after.shape[axis], field_mm / mm / 2
        middle = min(max((side.start + side.stop) / 2, reach), length - reach) if 2 * reach < length else length / 2
        window = slice(max(0, math.floor(middle - reach)), min(length, math.ceil(middle + reach)))
        windows.append(window)
        starts_mm.append((middle + reach - window.stop) * mm)  # upright, the last voxel comes first
    crop: list[slice | int] = list(windows)
    crop.insert(depth_axis, box[depth_axis].start + depth)
    outline = np.zeros([window.stop - window.start for window in windows], dtype=bool)
    here = tuple(
        slice(side.start - window.start, side.stop - window.start) for side, window in zip(sides, windows, strict=True)
    )
    outline[here] = np.take(mask, depth, axis=depth_axis)
    return Tile(
        lesion=lesion,
        before=_upright(before.array[tuple(crop)]).astype(np.float32),
        after=_upright(after.array[tuple(crop)]).astype(np.float32),
        mask=_upright(outline),
        pixel_mm=(spacing[1], spacing[0]),
        corner_mm=(starts_mm[1], starts_mm[0]),
        field_mm=field_mm,
    )


def _place_mm(volume: Volume, voxel: tuple[int, int, int]) -> list[float]:
    place: list[float] = (volume.affine[:3, :3] @ np.array(voxel) + volume.affine[:3, 3]).tolist()
    return place


def _slice_axis(volume: Volume) -> int:
    thickest = int(np.argmax(volume.spacing_mm))
    return thickest if volume.spacing_mm[thickest] > _THICK_SLICES * volume.spacing_mm[2] else 2


def _upright(plane: Shaped[np.ndarray, "first second"]) -> Shaped[np.ndarray, "row column"]:
    """Turn a RAS+ plane so that front or head is up and the patient's right (or front) is on the left."""
    return plane.T[::-1, ::-1]
