"""DICOM label objects, SEG and RTSTRUCT, as label maps of the series they refer to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from promptlesion.data.sources.dicom_contours import contour_names, contours_to_voxels
from promptlesion.data.sources.dicom_segments import segment_names, segments_to_voxels
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import DICOM_ERRORS, read_dicom
from promptlesion.data.sources.label_map import paint_structures
from promptlesion.data.spec import DatasetError


@dataclass(frozen=True)
class LabelFile:
    """A SEG or RTSTRUCT file: its structures, and what it says it belongs to."""

    path: Path
    names: tuple[str, ...]
    series_uids: frozenset[str]
    slice_uids: frozenset[str]
    frame_of_reference_uid: str


def open_label_file(path: Path) -> LabelFile:
    """Read what a label file holds and refers to; raises `DatasetError` naming it where it is damaged."""
    try:
        dataset = read_dicom(path)
        names = segment_names(dataset) if dataset.Modality == "SEG" else contour_names(dataset)
        series_uids, slice_uids = set(), set()
        for item in _nested(dataset):
            series_uids |= {str(item.SeriesInstanceUID)} if item.get("SeriesInstanceUID") else set()
            slice_uids |= {str(item.ReferencedSOPInstanceUID)} if item.get("ReferencedSOPInstanceUID") else set()
        return LabelFile(
            path=path,
            names=tuple(dict.fromkeys(names.values())),
            series_uids=frozenset(series_uids),
            slice_uids=frozenset(slice_uids),
            frame_of_reference_uid=_frame_of_reference(dataset),
        )
    except DICOM_ERRORS as error:
        raise DatasetError(f"{path}: expected a whole SEG or RTSTRUCT object, found a damaged one ({error})") from error


def label_volume(
    series: Series, files: tuple[LabelFile, ...], labels: dict[str, int]
) -> UInt8[np.ndarray, "column row slice"]:
    """The structures of all files that refer to a series, as one label map on its slices as they are in the files."""
    voxels: dict[str, list[Int64[np.ndarray, " _"]]] = {}
    for file in files:
        for name, found in _voxels(file, series):
            voxels.setdefault(name, []).append(found)
    first = series.slices[0]
    structures = [(name, np.unique(np.concatenate(parts))) for name, parts in sorted(voxels.items())]
    return paint_structures((first.num_columns, first.num_rows, len(series.slices)), structures, labels)


def _voxels(file: LabelFile, series: Series) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    dataset = read_dicom(file.path)
    read = segments_to_voxels if dataset.Modality == "SEG" else contours_to_voxels
    try:
        yield from read(dataset, file.path, series)
    except DatasetError:
        raise
    except DICOM_ERRORS as error:
        raise DatasetError(
            f"{file.path}: expected a whole SEG or RTSTRUCT object, found a damaged one ({error})"
        ) from error


def _nested(dataset: Any) -> Iterator[Any]:
    """All items of the sequences that refer to other objects."""
    for name in (
        *("ReferencedSeriesSequence", "ReferencedInstanceSequence", "ReferencedFrameOfReferenceSequence"),
        *("RTReferencedStudySequence", "RTReferencedSeriesSequence", "ContourImageSequence"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DerivationImageSequence"),
        *("SourceImageSequence", "ROIContourSequence", "ContourSequence"),
    ):
        for item in dataset.get(name) or ():
            yield item
            yield from _nested(item)


def _frame_of_reference(dataset: Any) -> str:
    if dataset.get("FrameOfReferenceUID"):
        return str(dataset.FrameOfReferenceUID)
    for item in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        if item.get("FrameOfReferenceUID"):
            return str(item.FrameOfReferenceUID)
    return ""
