"""A folder of DICOM files as a source: every CT series a case, SEG and RTSTRUCT objects its labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from promptlesion.data.sources.acquisition import acquisition_of
from promptlesion.data.sources.dicom_labels import LabelFile, label_volume, named_structures, open_label_file
from promptlesion.data.sources.dicom_matching import Place, match_labels
from promptlesion.data.sources.dicom_pixels import (
    AIR_HU,
    series_voxels,
    straight_affine,
    straightened,
)
from promptlesion.data.sources.dicom_series import (
    MIN_SLICES,
    Series,
    assemble,
    common_folder,
    describe,
    repeated,
    sorted_along_normal,
    split_by_grid,
    split_by_phase,
)
from promptlesion.data.sources.dicom_slices import SeriesIdentity, Slice, read_dicom, read_dicom_file, read_header
from promptlesion.data.sources.label_map import numbered_labels
from promptlesion.data.sources.source import NUMBERED_SUBJECTS, Scan, Source, SourceCase, numbered_name
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import oriented_volume

_NO_LABELS = "no SEG or RTSTRUCT refers to it: its label map holds background only"


@dataclass(frozen=True)
class _Stack:
    """Slices on their way to a volume: either they made one, or they are refused."""

    identity: SeriesIdentity
    slices: tuple[Slice, ...]
    series: Series | None
    refusal: str | None


def open_dicom(folder: Path, paths: Sequence[Path], *, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """List the CT series among the files, whatever they are called and wherever they lie, with their labels.

    Cases are numbered by patient and series, so that no identity travels. Only headers are read, except where two
    files claim one position. A series that makes no volume is a case with a refusal.
    """
    left_out: Counter[str] = Counter()
    examples: dict[str, Path] = {}
    by_series: dict[SeriesIdentity, list[Slice]] = {}
    found_labels: list[tuple[Path, SeriesIdentity]] = []
    for index, path in enumerate(paths, start=1):
        found = read_dicom_file(path)
        if found.kind == "slices" and found.identity is not None:
            by_series.setdefault(_key(found.identity, path), []).extend(found.slices)
        elif found.kind in ("segmentation", "structure set") and found.identity is not None:
            found_labels.append((path, found.identity))
        else:
            left_out[found.kind] += 1
            examples.setdefault(found.kind, path)
        if on_progress is not None:
            on_progress(index, len(paths))
    notes = [f"{count} file(s) left out, {kind}: {_first(examples[kind], count)}" for kind, count in left_out.items()]
    stacks = [
        stack for identity in sorted(by_series, key=_order) for stack in _stacks(identity, by_series[identity], notes)
    ]
    if not stacks:
        listed = "".join(f"\n  {note}" for note in notes)
        raise DatasetError(f"{folder}: expected CT series in DICOM, found none in {len(paths)} files{listed}")
    opened = [open_label_file(path, identity) for path, identity in found_labels]
    label_files, renaming = named_structures(opened)
    matching = match_labels(
        [(file, _subject_key(file.identity)) for file in label_files], [_place(one) for one in stacks]
    )
    stacks = [
        replace(stack, refusal=stack.refusal or why) for stack, why in zip(stacks, matching.refusals, strict=True)
    ]
    used = {name for files in matching.files for file in files for name in file.names.values()}
    labels = numbered_labels(used, place=folder)
    return Source(
        layout="dicom",
        labels=labels,
        cases=tuple(_cases(stacks, matching.files, labels)),
        notes=(*notes, *renaming, *matching.notes),
        refusals=matching.without_series,
        subject_pattern=NUMBERED_SUBJECTS,
    )


def read_series(series: Series, label_files: tuple[LabelFile, ...], labels: dict[str, int]) -> Scan:
    """Read a series and its labels onto one grid at right angles."""
    voxels, has_padding = series_voxels(series)
    painted, notes = label_volume(series, label_files, labels)
    if not label_files:
        notes.append(_NO_LABELS)
    if series.num_duplicates:
        notes.append(f"{series.num_duplicates} slice(s) that were there twice left out")
    if has_padding:
        notes.append(f"padding outside the field of view became air, {AIR_HU} HU")
    acquisition = acquisition_of(read_header(series.slices[0].path) or {})
    if series.is_tilted:
        voxels = straightened(voxels, series, order=1, fill=AIR_HU)
        painted = straightened(painted, series, order=0, fill=0)
        notes.append(
            f"gantry tilted by {series.tilt_degrees:.1f} degrees: slices moved within their planes onto a grid at "
            "right angles (linear interpolation)"
        )
        acquisition["straightened_tilt_degrees"] = round(series.tilt_degrees, 2)
    affine = straight_affine(series)
    image = oriented_volume(voxels, affine)
    return Scan(image, oriented_volume(painted, affine), acquisition=acquisition, notes=tuple(notes))


def _key(identity: SeriesIdentity, path: Path) -> SeriesIdentity:
    """What a series has in common. Its UID settles it; without one, all else, and the folder if all is empty."""
    if identity.series_uid or identity.frame_of_reference_uid:
        return identity
    return replace(identity, distinction=f"{identity.distinction} {path.parent}")


def _order(identity: SeriesIdentity) -> tuple[object, ...]:
    return (
        *(_subject_key(identity), identity.study_date, identity.study_uid, identity.number, identity.series_uid),
        *(identity.frame_of_reference_uid, identity.description, identity.distinction),
    )


def _subject_key(identity: SeriesIdentity) -> tuple[str, ...]:
    """Whose scan it is: the patient's; where anonymising emptied that, the study, or the frame of reference."""
    known = (identity.patient_id, identity.study_uid, identity.frame_of_reference_uid)
    for place, value in enumerate(known):
        if value:
            return (str(place), value)
    return ("3", identity.series_uid or identity.distinction)


def _stacks(identity: SeriesIdentity, slices: Sequence[Slice], notes: list[str]) -> list[_Stack]:
    copies: dict[object, list[Slice]] = {}
    for one in slices:  # some anonymisers give every slice one UID, so its position counts too
        copies.setdefault((one.uid or one.path, one.frame, one.position_mm), []).append(one)
    stacks = []
    for grid in split_by_grid(found[0] for found in copies.values()):
        for phase in split_by_phase(grid):
            if len(phase) < MIN_SLICES:
                notes.append(f"{describe(identity, phase)}: left out, a volume needs {MIN_SLICES} or more of one grid")
            else:
                in_phase = set(phase)
                num_copies = sum(len(found) - 1 for found in copies.values() if found[0] in in_phase)
                stacks.append(_stack(identity, phase, num_copies))
    return stacks


def _stack(identity: SeriesIdentity, slices: Sequence[Slice], num_duplicates: int) -> _Stack:
    ordered = sorted_along_normal(slices)
    try:
        for kept, other in repeated(ordered):
            if _pixels(kept) != _pixels(other):
                raise DatasetError(
                    f"{describe(identity, ordered)}: expected one slice at a position, found two that differ, "
                    f"{kept.path} and {other.path}"
                )
            ordered.remove(kept)
            num_duplicates += 1
        series = assemble(identity, ordered, num_duplicates=num_duplicates)
    except DatasetError as error:
        return _Stack(identity, tuple(ordered), None, str(error))
    return _Stack(identity, tuple(ordered), series, None)


def _pixels(one: Slice) -> bytes:
    return bytes(read_dicom(one.path).get("PixelData") or b"")


def _place(stack: _Stack) -> Place:
    known = stack.identity
    slice_uids = frozenset(one.uid for one in stack.slices)
    return Place(_subject_key(known), known.study_uid, known.series_uid, known.frame_of_reference_uid, slice_uids)


def _cases(
    stacks: Sequence[_Stack], matched: Sequence[Sequence[LabelFile]], labels: dict[str, int]
) -> Iterable[SourceCase]:
    subjects = {key: number for number, key in enumerate(sorted({_subject_key(stack.identity) for stack in stacks}), 1)}
    scans: Counter[int] = Counter()
    for stack, files in zip(stacks, matched, strict=True):
        subject = subjects[_subject_key(stack.identity)]
        scans[subject] += 1
        paths = tuple(dict.fromkeys([one.path for one in stack.slices] + [file.path for file in files]))
        yield SourceCase(
            name=numbered_name(subject, scans[subject]),
            files=paths,
            read=partial(_read, stack.series, tuple(files), labels),
            origin={
                "folder": str(common_folder(one.path for one in stack.slices)),
                "patient_id": stack.identity.patient_id,
                "study_uid": stack.identity.study_uid,
                "series_uid": stack.identity.series_uid,
                "series": stack.identity.description,
            },
            refusal=stack.refusal,
        )


def _read(series: Series | None, label_files: tuple[LabelFile, ...], labels: dict[str, int]) -> Scan:
    if series is None:
        raise DatasetError("expected a series that makes a volume, found a refused one")
    return read_series(series, label_files, labels)


def _first(path: Path, count: int) -> str:
    return str(path) if count == 1 else f"{path}, …"
