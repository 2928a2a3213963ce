"""A folder of DICOM files as a source: every CT series a case, SEG and RTSTRUCT objects its labels."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from promptlesion.data.case_check import check_hounsfield
from promptlesion.data.grouping import grouped
from promptlesion.data.sources.acquisition import acquisition_of
from promptlesion.data.sources.dicom_frames import LABEL_KINDS, NOT_DICOM, DicomFile, read_dicom_file
from promptlesion.data.sources.dicom_labels import LabelFile, label_volume, named_structures, open_label_file
from promptlesion.data.sources.dicom_matching import match_labels
from promptlesion.data.sources.dicom_pixels import AIR_HU, series_voxels, straight_affine, straightened
from promptlesion.data.sources.dicom_series import Series, common_folder, describe
from promptlesion.data.sources.dicom_slices import DICOM_ERRORS, SeriesIdentity, Slice, leniently, read_header
from promptlesion.data.sources.dicom_stacks import Stack, joined_series, stacks_of
from promptlesion.data.sources.extra import is_blank_file
from promptlesion.data.sources.label_map import numbered_labels
from promptlesion.data.sources.source import NUMBERED_SUBJECTS, Scan, Source, SourceCase, numbered_name
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import oriented_volume

_NO_LABELS = "no SEG or RTSTRUCT refers to it: its label map holds background only"


def open_dicom(folder: Path, paths: Sequence[Path], *, on_progress: Callable[[int, int], None] | None = None) -> Source:
    """List the CT series among the files, whatever they are called and wherever they lie, with their labels.

    Cases are numbered by patient and series, so that no identity travels. Only headers are read, except where two
    files claim one position. A series that makes no volume is a case with a refusal.
    """
    by_series: dict[object, list[Slice]] = {}
    others: list[DicomFile] = []
    for index, path in enumerate(paths, start=1):
        file = read_dicom_file(path)
        if file.slices and file.identity is not None:
            by_series.setdefault(_key(file.identity, path), []).extend(file.slices)
        else:
            others.append(file)
        if on_progress is not None:
            on_progress(index, len(paths))
    notes: list[str] = []
    stacks = list(_stacks(by_series.values(), others, notes))
    notes = [*_left_out(others), *notes]
    refusals = list(_refusals(others, stacks))
    if not stacks:
        listed = "".join(f"\n  {note}" for note in [*refusals, *notes])
        raise DatasetError(f"{folder}: expected CT series in DICOM, found none in {len(paths)} files{listed}")
    opened = [
        open_label_file(file.path, file.identity) for file in others if file.kind in LABEL_KINDS and file.identity
    ]
    label_files, renaming = named_structures(opened)
    subjects = _subjects(stacks)
    owned = [(file, subjects.get(_subject_key(file.identity))) for file in label_files]
    matching = match_labels(owned, stacks, [subjects[_subject_key(stack.identity)] for stack in stacks])
    stacks = [
        replace(stack, refusal=stack.refusal or why) for stack, why in zip(stacks, matching.refusals, strict=True)
    ]
    used = {name for files in matching.files for file in files for name in file.names.values()}
    labels = numbered_labels(used, place=folder)
    return Source(
        layout="dicom",
        labels=labels,
        cases=tuple(_cases(stacks, matching.files, labels, subjects)),
        notes=(*notes, *renaming, *matching.notes),
        refusals=(*refusals, *matching.without_series),
        subject_pattern=NUMBERED_SUBJECTS,
    )


def read_series(series: Series | None, label_files: tuple[LabelFile, ...], labels: dict[str, int]) -> Scan:
    """Read a series and its labels onto one grid at right angles; raises `DatasetError` for a refused one, `None`."""
    if series is None:
        raise DatasetError("expected a series that makes a volume, found a refused one")
    voxels, of_padding = series_voxels(series)
    check_hounsfield(_place(series), voxels, [one.place for one in series.slices])
    painted, of_labels = label_volume(series, label_files, labels)
    notes = [*of_labels, *([] if label_files else [_NO_LABELS]), *series.notes]
    if series.num_duplicates:
        notes.append(f"{series.num_duplicates} slice(s) that were there twice left out")
    notes += of_padding
    acquisition = _acquisition(series.slices[0].path)
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


def _acquisition(path: Path) -> dict[str, object]:
    """How a scan was made; nothing where a header that is right in what places the slices is damaged there."""
    with leniently():
        try:
            return acquisition_of(read_header(path) or {})
        except DICOM_ERRORS:
            return {}


def _key(identity: SeriesIdentity, path: Path) -> object:
    """What a series has in common. Its UID settles it; without one, all else, and the folder if all is empty."""
    if identity.series_uid:
        return identity.series_uid
    return identity if identity.frame_of_reference_uid else (identity, path.parent)


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


def _stacks(groups: Iterable[list[Slice]], others: list[DicomFile], notes: list[str]) -> Iterator[Stack]:
    unusable = grouped((file.series_uid, file) for file in others if file.series_uid and file.kind not in LABEL_KINDS)
    for group in sorted(joined_series(groups), key=lambda group: _order(group[0].identity)):
        uids = {one.identity.series_uid for one in group}
        yield from stacks_of(group, [file for uid in uids for file in unusable.get(uid, ())], notes)


def _left_out(files: Iterable[DicomFile]) -> Iterator[str]:
    """What files nobody need look at."""
    found = grouped((file.kind, file) for file in files if file.kind not in LABEL_KINDS and not file.is_damaged)
    for kind, same in found.items():
        yield f"{len(same)} file(s) left out, {kind}: {same[0].path}{', …' if len(same) > 1 else ''}"


def _refusals(files: Iterable[DicomFile], stacks: Iterable[Stack]) -> Iterator[str]:
    """Damaged files that no refused series names: by kind and, where they say which, by series."""
    told = {one.identity.series_uid for stack in stacks if stack.refusal for one in stack.slices}
    alike = {(one.path.parent, one.path.suffix) for stack in stacks for one in stack.slices}
    found: dict[tuple[str, str], list[DicomFile]] = {}
    for file in files:
        is_blank = file.kind == NOT_DICOM and (file.path.parent, file.path.suffix) in alike and is_blank_file(file.path)
        if is_blank or (file.is_damaged and file.series_uid not in told):
            found.setdefault(("an empty one" if is_blank else file.kind, file.series_uid), []).append(file)
    for (kind, _), same in found.items():
        series = f" of series {same[0].identity.description!r}" if same[0].identity else ""
        more = f" and in {len(same) - 1} more{series or ' files'}" if len(same) > 1 else series
        yield f"{same[0].path}: expected a whole DICOM file, found {kind}{more}"


def _cases(
    stacks: Sequence[Stack],
    matched: Sequence[Sequence[LabelFile]],
    labels: dict[str, int],
    subjects: dict[tuple[str, ...], int],
) -> Iterator[SourceCase]:
    scans: Counter[int] = Counter()
    for stack, files in zip(stacks, matched, strict=True):
        subject = subjects[_subject_key(stack.identity)]
        scans[subject] += 1
        paths = tuple(dict.fromkeys([one.path for one in stack.slices] + [file.path for file in files]))
        yield SourceCase(
            name=numbered_name(subject, scans[subject]),
            files=paths,
            read=partial(read_series, stack.series, tuple(files), labels),
            origin={
                "folder": str(common_folder(one.path for one in stack.slices)),
                "patient_id": stack.identity.patient_id,
                "study_uid": stack.identity.study_uid,
                "series_uid": stack.identity.series_uid,
                "series": stack.identity.description,
            },
            refusal=stack.refusal,
            place=_place(stack),
        )


def _subjects(stacks: Iterable[Stack]) -> dict[tuple[str, ...], int]:
    """Number the subjects; keys that one series has are one subject's, as where a patient ID was corrected in half."""
    same: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for stack in stacks:
        keys = {_subject_key(one.identity) for one in stack.slices} | {_subject_key(stack.identity)}
        together = set().union(keys, *(same.get(key, ()) for key in keys))
        same.update(dict.fromkeys(together, together))
    numbers = {key: number for number, key in enumerate(sorted({min(keys) for keys in same.values()}), 1)}
    return {key: numbers[min(keys)] for key, keys in same.items()}


def _place(stack: Stack | Series) -> str:
    """What messages call a series: folders may hold many, so its first file too."""
    return f"{describe(stack.identity, stack.slices)} ({stack.slices[0].path.name}, …)"
