"""AbdomenAtlas and TotalSegmentator: a folder a case, with `ct.nii.gz` and one file a structure."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from promptlesion.data.case_check import check_same_grid
from promptlesion.data.sources.image_files import image_stem, list_images, read_image
from promptlesion.data.sources.label_map import label_name, numbered_labels, paint_structures
from promptlesion.data.sources.source import Scan, Source, SourceCase
from promptlesion.data.spec import DatasetError

IMAGE_FILE = "ct.nii.gz"
MASK_FOLDER = "segmentations"


def open_abdomen_atlas(folder: Path) -> Source:
    """List the cases, which keep their names, as `BDMAP_00000012`, and the structures that any of them has."""
    folders = sorted(path.parent for path in folder.glob(f"*/{IMAGE_FILE}") if (path.parent / MASK_FOLDER).is_dir())
    if not folders:
        raise DatasetError(
            f"{folder}: expected folders of cases with {IMAGE_FILE} and {MASK_FOLDER}/ORGAN.nii.gz, found none"
        )
    masks = {case: _masks(case) for case in folders}
    counts = Counter(name for found in masks.values() for name in found)
    if not counts:
        raise DatasetError(f"{folders[0] / MASK_FOLDER}: expected one file a structure, ORGAN.nii.gz, found none")
    labels = numbered_labels(counts)
    rare = [name for name in labels if 0 < counts[name] < len(folders)]
    notes = [f"{name} is there in {counts[name]} of {len(folders)} cases" for name in rare[:10]]
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
            mask = read_image(path)
            if mask.shape != image.shape:
                check_same_grid(str(path), image, mask)
            yield name, np.flatnonzero(mask.array > 0).astype(np.int64, copy=False)

    return Scan(image, image.with_array(paint_structures(image.shape, structures(), labels)))


def _masks(case: Path) -> dict[str, Path]:
    """Files by structure; `combined_labels`, which some releases add, holds them all and is none."""
    files = {label_name(image_stem(path)): path for path in list_images(case / MASK_FOLDER)}
    return {name: path for name, path in files.items() if name and name != "combined_labels"}
