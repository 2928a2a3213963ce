"""DICOM label objects, SEG and RTSTRUCT, as label maps of the series they refer to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from promptlesion.data.grouping import grouped
from promptlesion.data.sources.dicom_contours import contour_remarks, contour_titles, contours_to_voxels
from promptlesion.data.sources.dicom_segments import segment_titles, segments_to_voxels
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import DICOM_ERRORS, SeriesIdentity, read_dicom
from promptlesion.data.sources.label_map import label_names, paint_structures, renamed
from promptlesion.data.spec import DatasetError


@dataclass(frozen=True)
class LabelFile:
    """A SEG or RTSTRUCT file: its structures by number, and whose they are.

    `titles` are the structures' names as the file has them, `names` those of their labels, known once all files are.
    `remarks` say what of the file is left out, `damage` why none of it can be read.
    """

    path: Path
    identity: SeriesIdentity
    titles: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    series_uids: frozenset[str] = frozenset()
    slice_uids: frozenset[str] = frozenset()
    frame_of_reference_uid: str = ""
    remarks: tuple[str, ...] = ()
    damage: str | None = None


def open_label_file(path: Path, identity: SeriesIdentity) -> LabelFile:
    """Read what a label file holds and refers to, as far as it is whole."""
    file = LabelFile(path, identity, frame_of_reference_uid=identity.frame_of_reference_uid)
    try:
        dataset = read_dicom(path)
        file = replace(file, **_references(dataset))
        has_contours = _has_contours(dataset)
        titles = contour_titles(dataset) if has_contours else segment_titles(dataset)
        remarks = contour_remarks(dataset) if has_contours else []
        remarks += [] if titles else ["no segment or region with closed contours in it"]
        return replace(file, titles=titles, remarks=tuple(remarks))
    except DICOM_ERRORS as error:
        return replace(file, damage=_damage(path, error))


def named_structures(files: Sequence[LabelFile]) -> tuple[list[LabelFile], list[str]]:
    """Give the structures of all files their label names: one for a title, wherever it stands, and none for two.

    Structures without a title get a name each. Also says what was renamed.
    """
    titles = {title for file in files for title in file.titles.values()} - {""}
    unnamed = (f"unnamed {number}" for number in count(1) if f"unnamed {number}" not in titles)
    titled = [
        replace(file, titles={number: title or next(unnamed) for number, title in file.titles.items()})
        for file in files
    ]
    names = label_names(title for file in titled for title in file.titles.values())
    named = [replace(file, names={number: names[title] for number, title in file.titles.items()}) for file in titled]
    untitled = [
        f"{file.path}: number {number} has no name, it is called {after.names[number]}"
        for file, after in zip(files, named, strict=True)
        for number, title in file.titles.items()
        if not title
    ]
    return named, [*renamed(names), *untitled]


def label_volume(
    series: Series, files: tuple[LabelFile, ...], labels: dict[str, int]
) -> tuple[UInt8[np.ndarray, "column row slice"], list[str]]:
    """The structures of all files that refer to a series, as one label map on its slices as they are in the files.

    Also says, by their label names alone, what of them was left out, widened or covered.
    """
    notes: list[str] = []
    voxels = grouped(pair for file in files for pair in _voxels(file, series, notes))
    first = series.slices[0]
    structures = [(name, np.unique(np.concatenate(parts))) for name, parts in sorted(voxels.items())]
    painted = paint_structures((first.num_columns, first.num_rows, len(series.slices)), structures, labels)
    shown = set(np.unique(painted).tolist())
    covered = [name for name, found in structures if len(found) and labels[name] not in shown]
    return painted, notes + [f"{name} lies wholly under other structures" for name in covered]


def _voxels(file: LabelFile, series: Series, notes: list[str]) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    try:
        dataset = read_dicom(file.path)
        read = contours_to_voxels if _has_contours(dataset) else segments_to_voxels
        yield from read(dataset, file.path, series, file.names, notes)
    except DatasetError:
        raise
    except DICOM_ERRORS as error:
        raise DatasetError(_damage(file.path, error)) from error


def _has_contours(dataset: Any) -> bool:
    return dataset.get("Modality") == "RTSTRUCT" or "StructureSetROISequence" in dataset


def _damage(path: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path}: expected a whole SEG or RTSTRUCT object, found a damaged one ({reason})"


def _references(dataset: Any) -> dict[str, Any]:
    items = list(_nested(dataset))
    return {
        "series_uids": frozenset(str(item.SeriesInstanceUID) for item in items if item.get("SeriesInstanceUID")),
        "slice_uids": frozenset(
            str(item.ReferencedSOPInstanceUID) for item in items if item.get("ReferencedSOPInstanceUID")
        ),
        "frame_of_reference_uid": _frame_of_reference(dataset),
    }


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
    holders = [dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or ())]
    return next((str(item.FrameOfReferenceUID) for item in holders if item.get("FrameOfReferenceUID")), "")
