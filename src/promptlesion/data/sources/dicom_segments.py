"""DICOM SEG objects: binary, fractional or label-map frames, placed by their own positions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import checked_directions, functional_group
from promptlesion.data.sources.label_map import is_background_name, structure_title
from promptlesion.data.sources.segment_frames import segment_frame
from promptlesion.data.spec import DatasetError

_LABEL_MAP = "LABELMAP"
_BACKGROUND_CODE = ("125040", "DCM")
_BESIDE_VOXELS = 0.25
_STEP_TOLERANCE = 0.02


def segment_titles(dataset: Any) -> dict[int, str]:
    """Return the title of every segment that is not the background, by number; an empty one where it has none."""
    titles: dict[int, str] = {}
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number in titles:
            raise ValueError(f"segment number {number} is there twice")
        titles[number] = structure_title(segment.get("SegmentLabel"))
    background = _background(dataset)
    return {n: title for n, title in titles.items() if n not in background and not is_background_name(title)}


def segments_to_voxels(
    dataset: Any, path: Path, series: Series, names: dict[int, str], notes: list[str]
) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the flat voxel indices of every segment's part in every frame, on the series' slices."""
    described = {int(segment.SegmentNumber) for segment in dataset.SegmentSequence} | _background(dataset)
    faint, seen = set(), set()
    for frame in range(_num_frames(dataset, path)):
        for number, mask, is_faint in _masks(dataset, frame, path):
            if number not in described:
                raise DatasetError(
                    f"{path}: expected the segments {sorted(described)}, found number {number} in frame {frame + 1}"
                )
            if number in names and mask.any():
                seen.add(names[number])
                yield names[number], _flat_indices(dataset, frame, np.argwhere(mask), path, series)
            elif number in names and is_faint:
                faint.add(names[number])
    notes += [f"{name} is empty: no voxel of it reaches half of the full value" for name in sorted(faint - seen)]


def _num_frames(dataset: Any, path: Path) -> int:
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    num_placed = len(dataset.get("PerFrameFunctionalGroupsSequence") or (None,))
    if num_placed != num_frames:
        raise DatasetError(f"{path}: expected a position for each of {num_frames} frames, found {num_placed}")
    return num_frames


def _masks(dataset: Any, frame: int, path: Path) -> Iterator[tuple[int, Bool[np.ndarray, "rows columns"], bool]]:
    """The segments in a frame: number, mask, and whether any pixel is above nothing."""
    pixels, kind = segment_frame(dataset, frame, path), str(dataset.get("SegmentationType") or "BINARY")
    if kind == _LABEL_MAP:
        yield from ((int(value), pixels == value, True) for value in np.unique(pixels))
        return
    identified = functional_group(dataset, frame, "SegmentIdentificationSequence")
    threshold = float(dataset.MaximumFractionalValue) / 2 if kind == "FRACTIONAL" else 1
    yield int(identified.ReferencedSegmentNumber), pixels >= threshold, bool(pixels.any())


def _background(dataset: Any) -> set[int]:
    """The numbers that are no segment: coded as background, and in a label map its padding, else 0."""
    coded = {
        int(segment.SegmentNumber)
        for segment in dataset.SegmentSequence
        for code in segment.get("SegmentedPropertyTypeCodeSequence") or ()
        if (str(code.get("CodeValue")), str(code.get("CodingSchemeDesignator"))) == _BACKGROUND_CODE
    }
    if str(dataset.get("SegmentationType")) != _LABEL_MAP:
        return coded
    padding = dataset.get("PixelPaddingValue")
    is_named = any(int(segment.SegmentNumber) == 0 for segment in dataset.SegmentSequence)
    return coded | ({0} if padding in (None, "") else {int(padding)}) | (set() if is_named else {0})


def _flat_indices(
    dataset: Any, frame: int, row_column: Int64[np.ndarray, "_ 2"], path: Path, series: Series
) -> Int64[np.ndarray, " _"]:
    origin, along_row, along_column = _geometry(dataset, frame, path)
    row, column = row_column[:, :1], row_column[:, 1:]
    indices = series.indices_of(origin + column * along_row + row * along_column)
    beside = np.abs(indices - np.rint(indices)).max()
    steps = np.stack([along_row, along_column]) @ np.linalg.inv(series.affine)[:3, :3].T
    uneven = np.abs(np.abs(steps).max(axis=1) - 1).max()
    if beside > _BESIDE_VOXELS or uneven > _STEP_TOLERANCE:
        raise DatasetError(
            f"{path}: expected segments on the pixels of {series.describe()}, found frame {frame + 1} "
            + (f"{beside:.2f} voxels beside them" if uneven <= _STEP_TOLERANCE else "with pixels of another size")
        )
    return flat_indices(np.rint(indices).astype(np.int64), path, series)


def flat_indices(indices: Int64[np.ndarray, "_ 3"], path: Path, series: Series) -> Int64[np.ndarray, " _"]:
    """Column, row and slice as one number a voxel; raises `DatasetError` for voxels beyond the series."""
    first = series.slices[0]
    shape = (first.num_columns, first.num_rows, len(series.slices))
    outside = ((indices < 0) | (indices >= np.array(shape))).any(axis=1)
    if outside.any():
        raise DatasetError(
            f"{path}: expected structures within {series.describe()}, found {int(outside.sum())} voxels outside it"
        )
    flat: np.ndarray = np.ravel_multi_index(tuple(indices.T), shape)
    return flat.astype(np.int64, copy=False)


def _geometry(
    dataset: Any, frame: int, path: Path
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    position = functional_group(dataset, frame, "PlanePositionSequence")
    orientation = functional_group(dataset, frame, "PlaneOrientationSequence")
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    directions = checked_directions(None if orientation is None else orientation.get("ImageOrientationPatient"))
    if position is None or measures is None or directions is None:
        raise DatasetError(
            f"{path}: expected position, orientation and spacing of frame {frame + 1}, found them missing"
        )
    rows_mm, columns_mm = (float(value) for value in measures.PixelSpacing)
    return (
        np.array([float(value) for value in position.ImagePositionPatient]),
        np.array(directions[:3]) * columns_mm,
        np.array(directions[3:]) * rows_mm,
    )
