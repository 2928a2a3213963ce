"""DICOM SEG objects: binary, fractional or label-map frames, placed by their own positions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from promptlesion.data.sources.dicom_pixels import frame_of
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import checked_directions, functional_group
from promptlesion.data.sources.label_map import label_name
from promptlesion.data.spec import DatasetError

_BESIDE_VOXELS = 0.25
_STEP_TOLERANCE = 0.02


def segment_names(dataset: Any) -> dict[int, str]:
    """Return the name of every segment, by number: its label, without what `lesions.toml` cannot hold."""
    names = {}
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        name = label_name(str(segment.get("SegmentLabel") or "")) or f"segment_{number}"
        if name.lower() != "background":
            names[number] = name
    return names


def segments_to_voxels(dataset: Any, path: Path, series: Series) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the flat voxel indices of every segment's part in every frame, on the series' slices."""
    names = segment_names(dataset)
    kind = str(dataset.get("SegmentationType") or "BINARY")
    threshold = float(dataset.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 1
    for frame in range(int(dataset.get("NumberOfFrames") or 1)):
        pixels = frame_of(dataset, frame, path)
        if kind == "LABELMAP":
            present = [int(value) for value in np.unique(pixels) if int(value) in names]
            masks = [(number, pixels == number) for number in present]
        else:
            identified = functional_group(dataset, frame, "SegmentIdentificationSequence")
            masks = [(int(identified.ReferencedSegmentNumber), pixels >= threshold)]
        for number, mask in masks:
            if number in names and mask.any():
                yield names[number], _flat_indices(dataset, frame, np.argwhere(mask), path, series)


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
