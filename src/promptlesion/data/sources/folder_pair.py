"""A folder of CTs and a folder of label maps, matched by their file names."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from promptlesion.data.case_check import label_values, whole_labels
from promptlesion.data.sources.image_files import image_stem, list_images, pair_case, read_image
from promptlesion.data.sources.source import NUMBERED_SUBJECTS, Source, SourceCase, numbered_cases
from promptlesion.data.spec import DatasetError
from promptlesion.data.subjects import SubjectsOf, likely_subjects, said_subjects

IMAGE_FOLDERS = ("images", "imagesTr", "image", "ct", "volumes", "scans")
LABEL_FOLDERS = ("labels", "labelsTr", "label", "masks", "segmentations")
_ROLE = re.compile(
    r"(^|[-_. ])(0000|cts?|images?|img|imaging|volumes?|vol|scans?|labels?|masks?|seg|segmentations?|gt)(?=$|[-_. ])",
    re.I,
)


def open_folder_pair(
    images: Path,
    labels: Path,
    *,
    names: Mapping[str, int],
    subjects_of: SubjectsOf | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Match CTs and label maps whose names agree but for words such as `image`, `ct`, `seg` or `label`.

    Cases are numbered, since file names may tell whose scan it is. `names` are the labels with their
    values; without any, the label maps are looked through, and their values called `label_N`. `subjects_of` says whose
    scan a file is by its name; without it names that have a likely subject in common are one subject's.
    """
    image_files, label_files = (_by_key(folder) for folder in (images, labels))
    if not image_files:
        raise DatasetError(f"{images}: expected CTs (.nii.gz, .nii, .nrrd, .nhdr, .mha, .mhd), found none")
    unused = len(set(label_files) - set(image_files))
    subjects = _subjects(image_files, subjects_of)
    order = sorted(image_files, key=lambda key: (subjects[key], key))
    used = [label_files[key] for key in sorted(image_files) if key in label_files]
    return Source(
        layout="folders",
        labels={"background": 0, **names} if names else _found_labels(used, on_progress),
        cases=tuple(
            _case(name, image_files[key], label_files.get(key), labels)
            for key, name in zip(order, numbered_cases([subjects[key] for key in order]), strict=True)
        ),
        notes=(
            *([f"{unused} label map(s) in {labels} without a CT left out"] if unused else ()),
            *([said_subjects({image_files[key].name: subjects[key] for key in order})] if subjects_of is None else ()),
        ),
        subject_pattern=NUMBERED_SUBJECTS,
    )


def _subjects(files: Mapping[str, Path], subjects_of: SubjectsOf | None) -> dict[str, str]:
    """Whose scan is behind every key."""
    if subjects_of is None:
        return likely_subjects(sorted(files))
    by_name = subjects_of([image_stem(path) for path in files.values()])
    return {key: by_name[image_stem(path)] for key, path in files.items()}


def _case(name: str, image: Path, label_map: Path | None, folder: Path) -> SourceCase:
    if label_map is not None:
        return pair_case(name, image, label_map)
    refusal = f"{image}: expected a label map of the same name in {folder}, found none"
    return replace(pair_case(name, image, folder / image.name), refusal=refusal)


def _by_key(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, found none")
    files: dict[str, Path] = {}
    for path in list_images(folder):
        key = _ROLE.sub("", image_stem(path)).strip("-_. ")
        if key in files:
            raise DatasetError(
                f"{path}: expected one file a case, found {files[key].name} too, whose name differs in nothing else"
            )
        files[key] = path
    return files


def _found_labels(files: Sequence[Path], on_progress: Callable[[int, int], None] | None) -> dict[str, int]:
    """A name for every value that occurs in the label maps, `label_N`."""
    values: set[int] = set()
    for num_done, path in enumerate(files, start=1):
        with suppress(ValueError):  # its case is refused by name when it is read
            values.update(map(int, label_values(whole_labels(str(path), read_image(path).array))))
        if on_progress is not None:
            on_progress(num_done, len(files))
    return {"background": 0} | {f"label_{value}": value for value in sorted(values - {0})}
