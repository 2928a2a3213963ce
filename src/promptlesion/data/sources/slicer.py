"""Segmentations of 3D Slicer, `.seg.nrrd`: cropped to what is in them, with segments that have names of their own."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from promptlesion.data.case_check import label_values, whole_labels
from promptlesion.data.crops import crop
from promptlesion.data.nifti_geometry import is_same_grid
from promptlesion.data.sources.image_header import read_fields
from promptlesion.data.sources.label_map import label_name, structure_title
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import Volume


def segments_of(path: Path) -> dict[str, int]:
    """Return the values of a label map by the names that 3D Slicer gave them; none for any other file.

    Raises `DatasetError` for a name without a letter or digit, and for two segments of one name or value, as where
    segments overlap and lie in layers.
    """
    segments: dict[str, int] = {}
    fields = read_fields(path) if path.name.lower().endswith(".nrrd") else {}
    for key, text in fields.items():
        match = re.fullmatch(r"segment(\d+)_name", key)
        value = fields.get(f"segment{match.group(1)}_labelvalue", "") if match else ""
        if not value.isdigit():
            continue
        name = structure_title(text)
        if not label_name(name) or name in segments or int(value) in segments.values():
            raise DatasetError(
                f"{path}: expected segments of their own names and values, found {text!r} or {value} twice, or no name"
            )
        segments[name] = int(value)
    return segments


def renumbered(path: Path, labels: Volume, segments: Mapping[str, int], values: Mapping[str, int]) -> Volume:
    """Return a label map with the values that its segments have in the dataset, by name: a file counts its own."""
    unknown = sorted(set(segments) - set(values))
    if unknown:
        raise DatasetError(f"{path}: expected segments called {', '.join(sorted(values))}, found {', '.join(unknown)}")
    whole = whole_labels(str(path), labels.array)
    nameless = sorted(set(label_values(whole)) - {0, *segments.values()})
    if nameless:
        raise DatasetError(f"{path}: expected a segment for every value, found none for {nameless}")
    table = np.zeros(256, dtype=np.uint8)
    for name, value in segments.items():
        table[value] = values[name]
    return labels.with_array(table[whole])


def padded(path: Path, image: Volume, labels: Volume) -> Volume:
    """Return a label map on the grid of its CT, background where the file has none; itself where it lies elsewhere.

    Raises `DatasetError` where a label lies beyond the CT.
    """
    place = np.linalg.inv(image.affine) @ labels.affine
    start = np.rint(place[:3, 3]).astype(int)
    moved = image.affine.copy()
    moved[:3, 3] = image.affine[:3, :3] @ start + image.affine[:3, 3]
    if (labels.shape == image.shape and not start.any()) or not is_same_grid(labels.shape, moved, labels.affine):
        return labels
    x, y, z = (-start).tolist()
    whole = crop(labels.array, (x, y, z), image.shape, fill=0)
    if np.count_nonzero(whole) < np.count_nonzero(labels.array):
        raise DatasetError(f"{path}: expected labels within the CT, found some beyond it")
    return Volume(whole, image.affine, image.source_header, {**labels.notes, "cropped": "padded to the scan"})
