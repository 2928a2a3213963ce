"""AbdomenAtlas and TotalSegmentator: a folder a case, with `ct.nii.gz` and one file a structure."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from promptlesion.data.case_check import on_the_grid_of, whole_labels
from promptlesion.data.sources.image_files import image_stem, list_images, read_image
from promptlesion.data.sources.label_map import (
    is_background_name,
    label_names,
    numbered_labels,
    paint_structures,
    renamed,
)
from promptlesion.data.sources.source import Scan, Source, SourceCase
from promptlesion.data.spec import DatasetError

IMAGE_FILE = "ct.nii.gz"
MASK_FOLDER = "segmentations"
_ALL_IN_ONE = "combined_labels"


def open_abdomen_atlas(folder: Path) -> Source:
    """List the cases, which keep their names, as `BDMAP_00000012`, and the structures that any of them has."""
    listed = {path.parent for part in (IMAGE_FILE, MASK_FOLDER) for path in folder.glob(f"*/{part}")}
    files = {case: _masks(case) for case in sorted(listed)}
    names = label_names(title for found in files.values() for title in found)
    masks = {case: {names[title]: path for title, path in found.items()} for case, found in files.items()}
    folders = [case for case in masks if masks[case] and (case / IMAGE_FILE).is_file()]
    if not folders:
        raise DatasetError(
            f"{folder}: expected folders of cases with {IMAGE_FILE} and {MASK_FOLDER}/ORGAN.nii.gz, found none"
        )
    counts = Counter(name for case in folders for name in masks[case])
    labels = numbered_labels(counts, place=folder)
    lacking = [case.name for case in masks if case not in folders]
    notes = [f"{len(lacking)} case(s) without a CT or without structures left out, {lacking[0]}, …"] if lacking else []
    notes += renamed(names)
    rare = [name for name in labels if 0 < counts[name] < len(folders)]
    notes += [f"{name} is there in {counts[name]} of {len(folders)} cases" for name in rare[:10]]
    notes += [f"and so on for {len(rare) - 10} more structures"] if len(rare) > 10 else []
    cases = tuple(
        SourceCase(
            name=case.name,
            files=(case / IMAGE_FILE, *masks[case].values()),
            read=partial(read_masks, case / IMAGE_FILE, masks[case], labels),
            origin={"folder": str(case)},
        )
        for case in folders
    )
    return Source(layout="abdomen-atlas", labels=labels, cases=cases, notes=tuple(notes))


def read_masks(image_file: Path, masks: dict[str, Path], labels: dict[str, int]) -> Scan:
    """Read a CT and draw its masks into one label map, lesions over organs."""
    image = read_image(image_file)

    def structures() -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
        for name, path in masks.items():
            mask = on_the_grid_of(str(path), image, read_image(path))
            yield name, np.flatnonzero(whole_labels(str(path), mask.array)).astype(np.int64, copy=False)

    label_map = image.with_array(paint_structures(image.shape, structures(), labels))
    return Scan(image, label_map, notes=tuple(image.notes.values()))


def _masks(case: Path) -> dict[str, Path]:
    """Files by structure; `combined_labels`, which some releases add, holds them all and is none."""
    listed = list_images(case / MASK_FOLDER) if (case / MASK_FOLDER).is_dir() else []
    files = {unicodedata.normalize("NFC", image_stem(path)): path for path in listed}
    return {title: path for title, path in files.items() if title != _ALL_IN_ONE and not is_background_name(title)}
