"""A folder of CTs and a folder of label maps, matched by their file names."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from promptlesion.data.case_check import label_values, whole_labels
from promptlesion.data.sources.image_files import image_stem, list_images, pair_case, read_image, said_endings
from promptlesion.data.sources.label_map import label_names, numbered_labels, renamed
from promptlesion.data.sources.slicer import segments_of
from promptlesion.data.sources.source import NUMBERED_SUBJECTS, Source, SourceCase, numbered_cases
from promptlesion.data.spec import DatasetError
from promptlesion.data.subjects import SubjectsOf, likely_subjects, said_subjects

IMAGE_FOLDERS = ("images", "imagesTr", "image", "img", "imgs", "ct", "volumes", "scans")
LABEL_FOLDERS = ("labels", "labelsTr", "label", "masks", "mask", "segmentations", "seg", "gt")
_WORDS = "cts?|images?|img|imaging|volumes?|vol|scans?|labels?|masks?|seg|segmentations?|gt"
_ROLE = re.compile(rf"(^|[-_. ])(0000|{_WORDS})(?=$|[-_. ])", re.I)
_NUMBERED_ROLE = re.compile(rf"(^|[-_. ])({_WORDS})(?=\d)", re.I)


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
        raise DatasetError(
            f"{images}: expected CTs (.nii.gz, .nii, .nrrd, .nhdr, .mha, .mhd), found {said_endings(images.iterdir())}"
        )
    unused = len(set(label_files) - set(image_files))
    subjects = _subjects(image_files, subjects_of)
    order = sorted(image_files, key=lambda key: (subjects[key], key))
    used = [label_files[key] for key in sorted(image_files) if key in label_files]
    segments = {path: segments_of(path) for path in used}
    titles = label_names(title for named in segments.values() for title in named)
    labels_found = {"background": 0, **names} if names else _found_labels(segments, titles, on_progress)
    values = {title: labels_found[name] for title, name in titles.items() if name in labels_found} | labels_found
    return Source(
        layout="folders",
        labels=labels_found,
        cases=tuple(
            _case(name, image_files[key], label_files.get(key), labels, values)
            for key, name in zip(order, numbered_cases([subjects[key] for key in order]), strict=True)
        ),
        notes=(
            *renamed(titles),
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


def _case(name: str, image: Path, label_map: Path | None, folder: Path, values: Mapping[str, int]) -> SourceCase:
    if label_map is not None:
        return pair_case(name, image, label_map, values=values)
    refusal = f"{image}: expected a label map of the same name in {folder}, found none"
    return replace(pair_case(name, image, folder / image.name), refusal=refusal)


def _by_key(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images, found none")
    files: dict[str, Path] = {}
    for path in list_images(folder):
        key = _NUMBERED_ROLE.sub(r"\1", _ROLE.sub("", image_stem(path))).strip("-_. ")
        if key in files:
            raise DatasetError(
                f"{path}: expected one file a case, found {files[key].name} too, whose name differs in nothing else"
            )
        files[key] = path
    return files


def _found_labels(
    segments: Mapping[Path, Mapping[str, int]],
    titles: Mapping[str, str],
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, int]:
    """The segments of the label maps, by name, or a name for every value that occurs in them, `label_N`."""
    nameless = [path for path, named in segments.items() if not named]
    if segments and not nameless:
        return numbered_labels(titles.values(), place=next(iter(segments)).parent)
    if len(nameless) < len(segments):
        named = next(path for path in segments if path not in nameless)
        raise DatasetError(
            f"{nameless[0]}: expected segments with names, as {named} has them, found none; give --label"
        )
    values: set[int] = set()
    for num_done, path in enumerate(nameless, start=1):
        with suppress(ValueError):  # its case is refused by name when it is read
            values.update(map(int, label_values(whole_labels(str(path), read_image(path).array))))
        if on_progress is not None:
            on_progress(num_done, len(nameless))
    return {"background": 0} | {f"label_{value}": value for value in sorted(values - {0})}
