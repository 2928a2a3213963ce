"""A folder of CTs and a folder of label maps, matched by their file names."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from promptlesion.data.case_check import label_values, whole_labels
from promptlesion.data.sources.image_files import image_stem, list_images, pair_case, read_image
from promptlesion.data.sources.source import NUMBERED_SUBJECTS, Source, SourceCase, numbered_name
from promptlesion.data.spec import DatasetError

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
    on_progress: Callable[[int, int], None] | None = None,
) -> Source:
    """Match CTs and label maps whose names agree but for words such as `image`, `ct`, `seg` or `label`.

    Cases are numbered, since file names may tell whose scan it is. `names` are the labels with their
    values; without any, the label maps are looked through, and their values called `label_N`.
    """
    image_files, label_files = (_by_key(folder) for folder in (images, labels))
    if not image_files:
        raise DatasetError(f"{images}: expected CTs (.nii.gz, .nii, .nrrd, .nhdr, .mha, .mhd), found none")
    unused = len(set(label_files) - set(image_files))
    used = [label_files[key] for key in sorted(image_files) if key in label_files]
    return Source(
        layout="folders",
        labels={"background": 0, **names} if names else _found_labels(used, on_progress),
        cases=tuple(
            _case(numbered_name(number, 1), image_files[key], label_files.get(key), labels)
            for number, key in enumerate(sorted(image_files), start=1)
        ),
        notes=(f"{unused} label map(s) in {labels} without a CT left out",) if unused else (),
        subject_pattern=NUMBERED_SUBJECTS,
    )


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
