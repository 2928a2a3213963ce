"""Slices of one series told apart: by grid, and where they share a place by phase, kernel, acquisition or time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from promptlesion.data.grouping import grouped
from promptlesion.data.sources.dicom_series import (
    MIN_SLICES,
    assemble,
    positions_along_normal,
    sorted_along_normal,
)
from promptlesion.data.sources.dicom_slices import Slice
from promptlesion.data.spec import DatasetError

_SAME_POSITION_MM = 0.01
_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3  # three decimals of half a millimetre
_MAX_TAGS = 3
_TELLS_SCANS_APART = "StudyInstanceUID"
_CHANGES_FROM_SLICE_TO_SLICE = ("Time", "XRayTubeCurrent", "XRayTubeCurrentInmA", "ExposureInmAs")


def split_by_grid(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Part slices of one series that differ in size, pixel spacing or orientation: a scout, a reformat."""
    groups: dict[tuple[int, int], list[list[Slice]]] = {}
    for one in slices:
        of_shape = groups.setdefault(one.shape, [])
        group = next((group for group in of_shape if _has_grid_of(one, group[0])), None)
        if group is None:
            of_shape.append([one])
        else:
            group.append(one)
    return [group for of_shape in groups.values() for group in of_shape]


def parted(slices: Sequence[Slice], num_tags: int = _MAX_TAGS) -> list[list[Slice]]:
    """Part slices that are several volumes, at the same places or between each other, by what tells them apart.

    What makes a volume as it is stays whole, unless volumes of two kinds are interleaved in it.
    """
    is_whole = is_volume(slices)
    candidates = list(_candidates(slices, is_whole)) if num_tags else []
    for parts in candidates:
        finer = parts if is_whole else [piece for part in parts for piece in parted(part, num_tags - 1)]
        if all(is_volume(part) for part in finer):
            return finer
    for parts in [] if is_whole or not shares_places(slices) else candidates:
        if not any(shares_places(part) for part in parts):
            return parts
    return [list(slices)]


def is_volume(slices: Sequence[Slice]) -> bool:
    """Whether slices lie one above the other, evenly, one a place."""
    if len(slices) < MIN_SLICES or shares_places(slices):
        return False
    try:
        assemble(slices[0].identity, sorted_along_normal(slices))
    except DatasetError:
        return False
    return True


def shares_places(slices: Sequence[Slice]) -> bool:
    """Whether two slices lie at one place."""
    return max(places_of(slices), default=-1) + 1 < len(slices)


def places_of(slices: Sequence[Slice]) -> list[int]:
    """The place of every slice along the normal, counted from the lowest; slices at one position share it."""
    if not slices:
        return []
    positions = positions_along_normal(slices)
    order = np.argsort(positions, kind="stable")
    places = np.empty(len(slices), dtype=np.int64)
    places[order] = np.cumsum(np.diff(positions[order], prepend=positions[order[0]]) >= _SAME_POSITION_MM)
    numbers: list[int] = places.tolist()
    return numbers


def _candidates(slices: Sequence[Slice], is_whole: bool) -> Iterator[list[list[Slice]]]:
    """The ways to part slices by one tag into enough of each, that lie beside or between each other: no halves."""
    tagged = [dict(one.phase) for one in slices]
    names = dict.fromkeys(name for tags in tagged for name in tags)
    for name in sorted(names, key=lambda name: name.endswith("Time")):
        if is_whole and name.endswith(_CHANGES_FROM_SLICE_TO_SLICE):
            continue
        parts = grouped((tags.get(name, ""), one) for one, tags in zip(slices, tagged, strict=True))
        if len(parts) < 2 or min(map(len, parts.values())) < MIN_SLICES:
            continue
        listed = [parts[key] for key in sorted(parts, key=_in_order)]
        overlaps = _overlaps(listed)
        if all(overlaps) if is_whole else any(overlaps) or name == _TELLS_SCANS_APART:
            yield listed


def _in_order(value: str) -> tuple[float, str]:
    try:
        return (float(value), value)
    except ValueError:
        return (float("inf"), value)


def _overlaps(parts: Sequence[Sequence[Slice]]) -> list[bool]:
    """Whether each part reaches into the next, in order along the normal of the first."""
    together = [one for part in parts for one in part]
    positions = np.split(positions_along_normal(together), np.cumsum([len(part) for part in parts])[:-1])
    spans = sorted((float(found.min()), float(found.max())) for found in positions)
    return [after[0] <= before[1] + _SAME_POSITION_MM for before, after in pairwise(spans)]


def _has_grid_of(one: Slice, other: Slice) -> bool:
    pairs = zip(one.spacing_mm, other.spacing_mm, strict=True)
    return all(abs(a - b) <= _SAME_SPACING * b for a, b in pairs) and all(
        abs(a - b) <= _SAME_DIRECTION for a, b in zip(one.directions, other.directions, strict=True)
    )
