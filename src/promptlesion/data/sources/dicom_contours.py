"""RTSTRUCT objects: closed planar contours, filled on the slices they were drawn on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from skimage.draw import polygon

from promptlesion.data.sources.dicom_segments import flat_indices
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.label_map import label_name
from promptlesion.data.spec import DatasetError

_CLOSED = ("CLOSED_PLANAR", "CLOSED_PLANAR_XOR", "CLOSEDPLANAR_XOR")
_BESIDE_SLICES = 0.25


def contour_names(dataset: Any) -> dict[int, str]:
    """Return the name of every region that has closed contours, by number."""
    titles = {int(roi.ROINumber): str(roi.get("ROIName") or "") for roi in dataset.StructureSetROISequence}
    names = {}
    for roi in dataset.get("ROIContourSequence") or ():
        number = int(roi.ReferencedROINumber)
        name = label_name(titles.get(number, "")) or f"region_{number}"
        if any(_is_closed(contour) for contour in roi.get("ContourSequence") or ()) and name.lower() != "background":
            names[number] = name
    return names


def contours_to_voxels(dataset: Any, path: Path, series: Series) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the flat voxel indices of every region on every slice; a contour inside another cuts a hole (even-odd)."""
    names = contour_names(dataset)
    first = series.slices[0]
    for roi in dataset.get("ROIContourSequence") or ():
        number = int(roi.ReferencedROINumber)
        if number not in names:
            continue
        planes: dict[int, Bool[np.ndarray, "columns rows"]] = {}
        for contour in roi.ContourSequence:
            if not _is_closed(contour):
                continue
            index, columns, rows = _in_slice(contour, names[number], path, series)
            filled = polygon(columns, rows, shape=(first.num_columns, first.num_rows))
            plane = planes.setdefault(index, np.zeros((first.num_columns, first.num_rows), dtype=bool))
            plane[filled] ^= True
        for index, plane in planes.items():
            inside = np.argwhere(plane)
            indices = np.concatenate([inside, np.full((len(inside), 1), index)], axis=1).astype(np.int64)
            yield names[number], flat_indices(indices, path, series)


def _is_closed(contour: Any) -> bool:
    kind = str(contour.get("ContourGeometricType") or "")
    return kind in _CLOSED and len(contour.get("ContourData") or ()) >= 9


def _in_slice(contour: Any, name: str, path: Path, series: Series) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the slice a contour was drawn on, and its corners there in columns and rows."""
    corners = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
    indices = series.indices_of(corners)
    index = int(np.rint(indices[:, 2].mean()))
    beside = float(np.abs(indices[:, 2] - index).max())
    if beside > _BESIDE_SLICES:
        raise DatasetError(
            f"{path}: expected contours of {name!r} on the slices of {series.describe()}, found one "
            f"{beside * series.slice_spacing_mm:.3g} mm beside them"
        )
    if not 0 <= index < len(series.slices):
        raise DatasetError(f"{path}: expected contours of {name!r} within {series.describe()}, found one outside it")
    return index, indices[:, 0], indices[:, 1]
