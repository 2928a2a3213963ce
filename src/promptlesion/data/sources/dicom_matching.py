"""Which label files belong to which series, and what to say where that is not plain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from promptlesion.data.grouping import grouped
from promptlesion.data.sources.dicom_labels import LabelFile
from promptlesion.data.sources.dicom_slices import Slice
from promptlesion.data.sources.dicom_stacks import Stack
from promptlesion.data.sources.source import counted


@dataclass(frozen=True)
class Matching:
    """For every series its label files, and why its labels cannot be whole, if so; files of no series; notes."""

    files: tuple[tuple[LabelFile, ...], ...]
    refusals: tuple[str | None, ...]
    without_series: tuple[str, ...]
    notes: tuple[str, ...]


def match_labels(
    label_files: Sequence[tuple[LabelFile, int | None]], stacks: Sequence[Stack], subjects: Sequence[int]
) -> Matching:
    """Match label files, each with the subject it is of if any scan is theirs, to series, each with its subject.

    By slice, else by series, else by frame of reference, which series of one subject may share. A damaged file belongs
    to the series it refers to, else to all of its study, else of its subject: their labels would not be whole.
    """
    files: list[list[LabelFile]] = [[] for _ in stacks]
    refusals: list[str | None] = [None for _ in stacks]
    without_series, remarks = [], []
    for file, subject in label_files:
        chosen, names_slices = _chosen(file, subject, stacks, subjects)
        if not chosen:
            without_series.append(
                file.damage
                or f"{file.path}: expected labels of a CT series in this folder, found references to none of them"
            )
        if len(chosen) > 1 and not names_slices and not file.damage:
            remarks.append((f"names no slice here, drawn on all {len(chosen)} series it may belong to", str(file.path)))
        remarks += [(remark, str(file.path)) for remark in file.remarks]
        for index in chosen:
            refusals[index] = refusals[index] or file.damage
            files[index].append(file)
    for found in files:
        remarks += _joined(found)
    return Matching(tuple(map(tuple, files)), tuple(refusals), tuple(without_series), tuple(counted(remarks)))


def _chosen(
    file: LabelFile, subject: int | None, stacks: Sequence[Stack], subjects: Sequence[int]
) -> tuple[list[int], bool]:
    """The series a file belongs to, and whether it names slices of theirs."""

    def having(is_so: Callable[[Slice], bool]) -> list[int]:
        return [index for index, stack in enumerate(stacks) if any(map(is_so, stack.slices))]

    by_slice = having(lambda one: one.uid in file.slice_uids)
    chosen = by_slice or having(lambda one: one.identity.series_uid in file.series_uids)
    if chosen:
        return chosen, bool(by_slice)
    frame = file.frame_of_reference_uid
    in_frame = having(lambda one: bool(frame) and one.identity.frame_of_reference_uid == frame)
    if len(in_frame) > 1:  # some anonymisers give all patients one frame of reference
        in_frame = [index for index in in_frame if subjects[index] == subject]
    if in_frame or not file.damage:
        return in_frame, False
    of_subject = [index for index, of in enumerate(subjects) if of == subject]
    in_study = having(lambda one: one.identity.study_uid == file.identity.study_uid)
    return [index for index in of_subject if index in in_study] or of_subject, False


def _joined(files: Sequence[LabelFile]) -> list[tuple[str, str]]:
    """Say of which structures several files of one series hold a part, or a version."""
    holders = grouped((name, str(file.path)) for file in files for name in set(file.names.values()))
    return [
        (f"{name} stands in {len(paths)} label files of one series, which were joined", " and ".join(paths))
        for name, paths in sorted(holders.items())
        if len(paths) > 1
    ]
