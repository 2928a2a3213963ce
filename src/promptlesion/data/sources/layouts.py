"""Which layout a folder has, and the converter for it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from promptlesion.data.dataset_json import read_dataset_json
from promptlesion.data.sources.abdomen_atlas import IMAGE_FILE as ATLAS_IMAGE
from promptlesion.data.sources.abdomen_atlas import MASK_FOLDER, open_abdomen_atlas
from promptlesion.data.sources.decathlon import open_decathlon
from promptlesion.data.sources.extra import imported, looks_like_dicom
from promptlesion.data.sources.folder_pair import IMAGE_FOLDERS, LABEL_FOLDERS, open_folder_pair
from promptlesion.data.sources.image_files import list_images, said_endings
from promptlesion.data.sources.kits import IMAGE_FILE as KITS_IMAGE
from promptlesion.data.sources.kits import open_kits
from promptlesion.data.sources.nnunet import open_nnunet
from promptlesion.data.sources.source import Source
from promptlesion.data.spec import DatasetError
from promptlesion.data.subjects import SubjectsOf, likely_subjects, said_subjects, subjects_by

_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz")


class Layout(StrEnum):
    """Layouts that `prepare` reads."""

    DICOM = "dicom"
    DECATHLON = "decathlon"
    KITS = "kits"
    ABDOMEN_ATLAS = "abdomen-atlas"
    NNUNET = "nnunet"
    FOLDERS = "folders"


def open_source(
    folder: Path,
    *,
    layout: Layout | None = None,
    label_folder: Path | None = None,
    names: Mapping[str, int] | None = None,
    subjects: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """List the cases of a folder in any known layout, which is found out unless it is given.

    `label_folder` and `names` belong to a pair of folders: where its label maps lie, and label names with their values.
    `subjects` says whose scans there are, by a pattern or a CSV file (`subjects_by`). `on_progress` is told (files
    looked at, files there) where all have to be looked at. Raises `DatasetError` for a folder in no known layout,
    saying what was looked for.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of scans, found {'a file' if folder.exists() else 'none'}")
    chosen = layout or detect_layout(folder, label_folder)
    if chosen is not Layout.FOLDERS and (label_folder is not None or names):
        option = "--labels" if label_folder is not None else "--label"
        raise DatasetError(f"{option}: expected with the layout {Layout.FOLDERS} alone, found {folder} in {chosen}")
    if chosen is Layout.DICOM and subjects is not None:
        raise DatasetError(f"--subjects: expected with images alone, found {folder} in {chosen}, which has PatientID")
    subjects_of = None if subjects is None else subjects_by(subjects)
    if chosen is Layout.DICOM:
        return _open_dicom(folder, on_progress)
    if chosen is Layout.FOLDERS:
        images, label_maps = (folder, label_folder) if label_folder is not None else _pair_folders(folder)
        if images is None or label_maps is None:
            raise DatasetError(f"{folder}: expected its folders `images` and `labels`, or --labels DIR, found neither")
        return open_folder_pair(images, label_maps, names=names or {}, subjects_of=subjects_of, on_progress=on_progress)
    return _with_subjects(_OPENERS[chosen](folder), subjects_of)


_OPENERS: dict[Layout, Callable[[Path], Source]] = {
    Layout.DECATHLON: open_decathlon,
    Layout.KITS: open_kits,
    Layout.ABDOMEN_ATLAS: open_abdomen_atlas,
    Layout.NNUNET: open_nnunet,
}
"""Of the layouts whose cases keep their names."""


def _with_subjects(source: Source, subjects_of: SubjectsOf | None) -> Source:
    """Note whose the cases are, numbered, where a subject has several or the user says whose."""
    names = [case.name for case in source.cases]
    subjects = (subjects_of or likely_subjects)(names)
    if subjects_of is None and len(set(subjects.values())) == len(names):
        return source
    number = {subject: f"S{index:04d}" for index, subject in enumerate(sorted(set(subjects.values())), start=1)}
    notes = source.notes if subjects_of else (*source.notes, said_subjects(subjects))
    return replace(source, subjects={name: number[subjects[name]] for name in names}, notes=notes)


def detect_layout(folder: Path, label_folder: Path | None = None) -> Layout:
    """Find out which layout a folder has; raises `DatasetError` where it has none of them."""
    if label_folder is not None:
        return Layout.FOLDERS
    found = _layouts_of(folder)
    if len(found) > 1:
        raise DatasetError(f"{folder}: expected one layout, found {' and '.join(found)}; say which with --layout")
    if found:
        return found[0]
    files = _files_below(folder)
    if any(looks_like_dicom(path) for path in files):
        return Layout.DICOM
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and _layouts_of(path)]
    others = said_endings(files)
    hint = f"; {below[0]} is one" if below else "; a folder of CTs takes --labels DIR"
    packed = [path for path in files if path.suffix.lower() in _ARCHIVES]
    hint = f"; unpack {packed[0]} first" if packed else hint
    raise DatasetError(
        f"{folder}: expected DICOM files, a dataset.json (Decathlon, nnU-Net), CASE/imaging.nii.gz (KiTS), "
        "CASE/ct.nii.gz with CASE/segmentations (AbdomenAtlas), or folders `images` and `labels`, found "
        f"{len(files)} files of none{hint}{'' if others == 'none' else f': {others}'}"
    )


def _layouts_of(folder: Path) -> list[Layout]:
    """The layouts that a folder shows by its files' names; DICOM shows by their content alone."""
    found = []
    images, labels = _pair_folders(folder)
    if (folder / "dataset.json").is_file():
        content = read_dataset_json(folder / "dataset.json")
        is_nnunet = "training" not in content or "file_ending" in content
        found.append(Layout.NNUNET if is_nnunet else Layout.DECATHLON)
    elif images is not None and labels is not None and list_images(images):
        found.append(Layout.FOLDERS)
    if next(folder.glob(f"*/{KITS_IMAGE}"), None):
        found.append(Layout.KITS)
    if any((path.parent / MASK_FOLDER).is_dir() for path in folder.glob(f"*/{ATLAS_IMAGE}")):
        found.append(Layout.ABDOMEN_ATLAS)
    return found


def _open_dicom(folder: Path, on_progress: Callable[[int, int], None] | None) -> Source:
    imported("pydicom", needed_for=folder)  # before what imports it
    from promptlesion.data.sources.dicom import open_dicom

    return open_dicom(folder, _files_below(folder), on_progress=on_progress)


def _pair_folders(folder: Path) -> tuple[Path | None, Path | None]:
    there = {path.name.lower(): path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir()}

    def first(names: Sequence[str]) -> Path | None:
        return next((there[name.lower()] for name in names if name.lower() in there), None)

    return first(IMAGE_FOLDERS), first(LABEL_FOLDERS)


def _files_below(folder: Path) -> list[Path]:
    """Every file in the folder and below it, in a fixed order, without the hidden ones that file managers leave.

    Linked folders count, each once.
    """
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(files) if not name.startswith(".")]
    return found
