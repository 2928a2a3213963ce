"""CT slices as stacks, one a volume: the series UID settles what belongs together, geometry what makes a volume.

What was torn apart by identifiers is joined, phases and kernels are parted, and copies are left out, each compared
with the slice it is a copy of, voxel for voxel in HU.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from promptlesion.data.sources.dicom_frames import DicomFile
from promptlesion.data.sources.dicom_phases import is_volume, parted, places_of, split_by_grid
from promptlesion.data.sources.dicom_pixels import contents_of
from promptlesion.data.sources.dicom_series import (
    MIN_SLICES,
    Series,
    assemble,
    axes,
    describe,
    positions_along_normal,
    sorted_along_normal,
)
from promptlesion.data.sources.dicom_slices import SeriesIdentity, Slice
from promptlesion.data.spec import DatasetError

_JOINED = {
    "patient_id": "patient ID",
    "study_uid": "study UID",
    "frame_of_reference_uid": "frame of reference",
    "number": "series number",
    "series_uid": "series UID",
    "description": "series description",
}
_JOINED_PHASES = {"ConvolutionKernel": "kernel", "KVP": "tube voltage"}
_PARALLEL = 0.99
_NEXT = 1.5


@dataclass(frozen=True)
class Stack:
    """Slices on their way to a volume: either they made one, or they are refused."""

    identity: SeriesIdentity
    slices: tuple[Slice, ...]
    series: Series | None
    refusal: str | None


def joined_series(groups: Iterable[list[Slice]]) -> Iterator[list[Slice]]:
    """Series by their UIDs; those that are torn (a UID of its own for every slice, or for a half) become whole again.

    They are joined where all else that names a series agrees and their positions make a volume.
    """
    pools: dict[tuple[object, ...], list[list[Slice]]] = {}
    for group in groups:
        one = group[0].identity
        key = (one.patient_id or one.study_uid, one.study_date, one.number, one.description, one.distinction)
        pools.setdefault(key, []).append(group)
    for pool in pools.values():
        together = [one for group in pool for one in group]
        is_torn = max(map(len, pool)) < MIN_SLICES <= len(together)
        yield from [together] if len(pool) > 1 and (is_torn or _makes_fewer(together, len(pool))) else pool


def stacks_of(slices: Sequence[Slice], unusable: Sequence[DicomFile], notes: list[str]) -> Iterator[Stack]:
    """The stacks of a series, of which `unusable` are files that should have been slices; what is too few is noted."""
    grids = split_by_grid(slices)
    for grid in grids:
        part, refusal = grid, _lacks(grid, unusable) or _goes_on(grid, grids)
        copies: Counter[tuple[Path, int]] = Counter()
        try:
            part, copies = _without_copies(grid)
        except DatasetError as error:
            refusal = refusal or f"{describe(_identity_of(grid), grid)}: {error}"
        for phase in [part] if refusal else parted(part):
            if max(places_of(phase), default=0) + 1 >= MIN_SLICES:
                yield _stack(phase, sum(copies[one.path, one.frame] for one in phase), refusal)
            else:
                place = describe(_identity_of(phase), phase)
                notes.append(
                    f"{place}: left out, a volume needs {MIN_SLICES} or more of one grid at places of their own"
                )


def _makes_fewer(slices: Sequence[Slice], num_groups: int) -> bool:
    grids = split_by_grid(slices)
    return len(grids) < num_groups and all(is_volume(grid) for grid in grids if len(grid) >= MIN_SLICES)


def _lacks(grid: Sequence[Slice], unusable: Sequence[DicomFile]) -> str | None:
    """Why a stack is not whole: a file of its series and size that is no slice."""
    for file in unusable:
        if file.shape in (None, grid[0].shape):
            place = describe(_identity_of(grid), grid)
            return f"{place}: expected every CT of the series to be a slice of it, found {file.path}, {file.kind}"
    return None


def _goes_on(grid: Sequence[Slice], grids: Sequence[Sequence[Slice]]) -> str | None:
    """Why a stack is not whole: it goes on in slices of another pixel spacing or orientation, more than rounding."""
    if len(grid) < MIN_SLICES:
        return None
    _, _, normal = axes(grid[0])
    positions = np.sort(positions_along_normal(grid))
    step = float(np.median(np.diff(positions)))
    for other in grids:
        if other is grid or other[0].shape != grid[0].shape or abs(axes(other[0])[2] @ normal) < _PARALLEL:
            continue
        beyond = np.array([one.position_mm for one in other]) @ normal
        outside = np.maximum(positions[0] - beyond, beyond - positions[-1])
        if 0 < outside.min() <= _NEXT * step:
            worst = other[int(outside.argmin())]
            return (
                f"{describe(_identity_of(grid), grid)}: expected one pixel spacing and orientation, found "
                f"{worst.spacing_mm} mm, {worst.directions} in {worst.path} and {grid[0].spacing_mm} mm, "
                f"{grid[0].directions} in {grid[0].path}"
            )
    return None


def _without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], Counter[tuple[Path, int]]]:
    """Leave out what is at one place twice with the same HU, and alike in all that tells phases apart or in UID.

    Returns how many copies each slice that is kept had too.
    """
    places = places_of(slices)
    places_of_uid: dict[tuple[str, int], set[int]] = {}
    for one, place in zip(slices, places, strict=True):
        places_of_uid.setdefault((one.uid, one.frame), set()).add(place)  # some anonymisers give every slice one UID
    keys = []
    for one, place in zip(slices, places, strict=True):
        by_uid = [(place, one.uid, one.frame)] if one.uid and len(places_of_uid[one.uid, one.frame]) == 1 else []
        keys.append([(place, one.phase), *by_uid])
    counts = Counter(key for found in keys for key in found)
    alike = [[key for key in found if counts[key] > 1] for found in keys]
    contents = contents_of([one for one, found in zip(slices, alike, strict=True) if found])
    kept, num_copies = [], Counter[tuple[Path, int]]()
    seen: dict[object, Slice] = {}
    for one, found in zip(slices, alike, strict=True):
        marks = [(key, contents[one.path, one.frame]) for key in found]
        first = next((seen[mark] for mark in marks if mark in seen), one)
        if first is one:
            kept.append(one)
        else:
            num_copies[first.path, first.frame] += 1
        seen.update((mark, first) for mark in marks)
    return kept, num_copies


def _stack(slices: Sequence[Slice], num_duplicates: int, refusal: str | None) -> Stack:
    identity, ordered = _identity_of(slices), sorted_along_normal(slices)
    if refusal is not None:
        return Stack(identity, tuple(ordered), None, refusal)
    try:
        kept = _one_a_place(identity, ordered)
        series = assemble(
            identity, kept, num_duplicates=num_duplicates + len(ordered) - len(kept), notes=tuple(_joins(kept))
        )
    except DatasetError as error:
        return Stack(identity, tuple(ordered), None, str(error))
    return Stack(identity, tuple(kept), series, None)


def _one_a_place(identity: SeriesIdentity, ordered: Sequence[Slice]) -> list[Slice]:
    places = places_of(ordered)
    counts = Counter(places)
    contents = contents_of([one for one, place in zip(ordered, places, strict=True) if counts[place] > 1])
    kept: dict[int, Slice] = {}
    for one, place in zip(ordered, places, strict=True):
        first = kept.setdefault(place, one)
        if first is not one and contents[first.path, first.frame] != contents[one.path, one.frame]:
            raise DatasetError(
                f"{describe(identity, ordered)}: expected one slice at a position, found two that differ, "
                f"{first.place} and {one.place}"
            )
    return list(kept.values())


def _identity_of(slices: Sequence[Slice]) -> SeriesIdentity:
    """What most of the slices say they are."""
    values = zip(*(astuple(one.identity) for one in slices), strict=True)
    return SeriesIdentity(*(Counter(column).most_common(1)[0][0] for column in values))


def _joins(slices: Sequence[Slice]) -> Iterator[str]:
    """What was joined though it differs, without the values: they may name somebody."""
    distinct = {one.identity for one in slices}
    found = [word for name, word in _JOINED.items() if len({getattr(one, name) for one in distinct}) > 1]
    for name, word in _JOINED_PHASES.items():
        found += [word] if len({dict(one.phase).get(name) for one in slices}) > 1 else []
    if found:
        yield f"slices that differ in {', '.join(found)} joined: series UID or positions say that they are one volume"
    spacings = np.array([one.spacing_mm for one in slices])
    if not np.array_equal(spacings.min(axis=0), spacings.max(axis=0)):
        yield "pixel spacing differs between slices, by rounding: the first slice's is taken"
