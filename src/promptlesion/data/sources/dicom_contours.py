"""RTSTRUCT objects: closed planar contours, filled on the slices they were drawn on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from promptlesion.data.sources.contour_filling import encloses_no_pixel, filled
from promptlesion.data.sources.dicom_segments import flat_indices
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.label_map import is_background_name, structure_title
from promptlesion.data.spec import DatasetError

_XOR = ("CLOSED_PLANAR_XOR", "CLOSEDPLANAR_XOR")
_CLOSED = ("CLOSED_PLANAR", *_XOR)
_BESIDE_SLICES = 0.25
_ONE_PLANE_MM = 0.1  # some programs write positions with one decimal
_ONE_PLANE_SLICES = 0.1


@dataclass(frozen=True)
class _Contour:
    """A closed contour: its corners in columns and rows, where its plane lies among the slices, and its type."""

    corners: Float64[np.ndarray, "_ 2"]
    slice_position: float
    is_xor: bool


def contour_titles(dataset: Any) -> dict[int, str]:
    """Return the title of every region that has closed contours, by number; an empty one where it has none.

    Raises `ValueError` where two regions share a number, or contours refer to a region that is not there.
    """
    titles: dict[int, str] = {}
    for roi in dataset.StructureSetROISequence:
        number = int(roi.ROINumber)
        if number in titles:
            raise ValueError(f"region number {number} is there twice")
        titles[number] = structure_title(roi.get("ROIName"))
    closed = [number for number, contours in _regions(dataset) if any(_is_closed(contour) for contour in contours)]
    if set(closed) - set(titles):
        raise ValueError(f"contours of the regions {sorted(set(closed) - set(titles))}, which it does not describe")
    return {number: titles[number] for number in closed if not is_background_name(titles[number])}


def contour_remarks(dataset: Any) -> list[str]:
    """Say which regions, or contours of theirs, are left out as they enclose nothing."""
    titles = {int(roi.ROINumber): structure_title(roi.get("ROIName")) for roi in dataset.StructureSetROISequence}
    regions = _regions(dataset)
    absent = set(titles) - {number for number, _ in regions}
    remarks = [f"region {titles[number]!r} left out, not among the contours" for number in sorted(absent)]
    for number, contours in regions:
        kinds = Counter(_why_not_closed(contour) for contour in contours if not _is_closed(contour))
        part = "" if sum(kinds.values()) == len(contours) else "contours of "
        remarks += [f"{part}region {titles.get(number, '')!r} left out, {why}" for why in kinds]
    return remarks


def contours_to_voxels(
    dataset: Any, path: Path, series: Series, names: dict[int, str], notes: list[str]
) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the flat voxel indices of every region on every slice.

    Contours of one plane make holes and islands; planes that fall on one slice are joined. `notes` are told what lies
    beyond the scan and what is tiny.
    """
    num_there = num_within = 0
    for number, listed in _regions(dataset):
        if number not in names:
            continue
        name = names[number]
        contours = [_placed(contour, name, path, series) for contour in listed if _is_closed(contour)]
        within = [contour for contour in contours if _is_within(contour, series)]
        num_there, num_within = num_there + len(contours), num_within + len(within)
        notes += _remarks(name, contours, within)
        for index, plane in _planes(within, series):
            inside = np.insert(np.argwhere(plane), 2, index, axis=1).astype(np.int64)
            yield name, flat_indices(inside, path, series)
    if num_there and not num_within:
        raise DatasetError(f"{path}: expected contours within {series.describe()}, found all {num_there} outside it")


def _regions(dataset: Any) -> list[tuple[int, Sequence[Any]]]:
    return [(int(roi.ReferencedROINumber), roi.get("ContourSequence") or ()) for roi in dataset.ROIContourSequence]


def _kind(contour: Any) -> str:
    return str(contour.get("ContourGeometricType") or "").strip()


def _is_closed(contour: Any) -> bool:
    return _kind(contour) in _CLOSED and len(contour.get("ContourData") or ()) >= 3


def _why_not_closed(contour: Any) -> str:
    kind = _kind(contour) or "contours without a type"
    return f"{kind} without corners" if kind in _CLOSED else kind


def _placed(contour: Any, name: str, path: Path, series: Series) -> _Contour:
    corners = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
    if not np.isfinite(corners).all():
        raise DatasetError(f"{path}: expected corners of {name!r} in millimetres, found one that is no number")
    indices = series.indices_of(corners)
    position = float(indices[:, 2].mean())
    index = min(max(round(position), 0), len(series.slices) - 1)
    beside = float(np.abs(indices[:, 2] - index).max())
    if beside > _BESIDE_SLICES and round(position) == index:
        raise DatasetError(
            f"{path}: expected contours of {name!r} on the slices of {series.describe()}, found one "
            f"{beside * series.slice_spacing_mm:.3g} mm beside them"
        )
    return _Contour(indices[:, :2], position, _kind(contour) in _XOR)


def _is_within(contour: _Contour, series: Series) -> bool:
    """Whether a contour lies on a slice, and not wholly beside its pixels."""
    size = (series.slices[0].num_columns, series.slices[0].num_rows)
    is_beside = (contour.corners.max(axis=0) < -0.5) | (contour.corners.min(axis=0) > np.array(size) - 0.5)
    return 0 <= round(contour.slice_position) < len(series.slices) and not is_beside.any()


def _planes(contours: list[_Contour], series: Series) -> Iterator[tuple[int, Bool[np.ndarray, "column row"]]]:
    """Fill contours plane by plane, and join the planes on each slice."""
    first = series.slices[0]
    shape = (first.num_columns, first.num_rows)
    apart = min(_ONE_PLANE_MM / series.slice_spacing_mm, _ONE_PLANE_SLICES)
    slices: dict[int, Bool[np.ndarray, "column row"]] = {}
    ordered = sorted(contours, key=lambda contour: contour.slice_position)
    while ordered:
        in_plane = [one for one in ordered if one.slice_position <= ordered[0].slice_position + apart]
        ordered = ordered[len(in_plane) :]
        index = round(in_plane[0].slice_position)
        plane = slices.setdefault(index, np.zeros(shape, dtype=bool))
        plane |= filled([one.corners for one in in_plane], shape, is_xor=any(one.is_xor for one in in_plane))
    yield from slices.items()


def _remarks(name: str, contours: list[_Contour], within: list[_Contour]) -> list[str]:
    num_tiny = sum(encloses_no_pixel(contour.corners) for contour in within)
    tiny = f"{num_tiny} contour(s) of {name} enclose no voxel's centre: the nearest voxel was taken"
    num_beyond = len(contours) - len(within)
    beyond = f"{num_beyond} of {len(contours)} contours of {name} lie beyond the scan and were left out"
    return [beyond] * bool(num_beyond) + [tiny] * bool(num_tiny)
