"""nnU-Net's `dataset.json`: the labels of a CT dataset."""

import json
import re
from pathlib import Path
from typing import Any

from promptlesion.data.spec import DatasetError
from promptlesion.training.atomic import read_json, write_text

FILE_ENDING = ".nii.gz"
IGNORE_LABEL = "ignore"
"""What nnU-Net calls the label of voxels that nobody looked at: they neither train nor count nor take lesions."""


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The content of a `dataset.json`, nnU-Net's or the Decathlon's; raises `DatasetError` where there is none."""
    if not path.is_file():
        raise DatasetError(f"{path}: expected the dataset.json of a dataset folder, found none")
    try:
        return read_json(path)
    except ValueError as error:
        raise DatasetError(str(error)) from error


def write_dataset_json(root: Path, *, labels: dict[str, int], num_training: int, extra: dict[str, object]) -> None:
    """Write nnU-Net's `dataset.json` for a CT dataset; `extra` adds keys, which nnU-Net ignores."""
    content = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": num_training,
        "file_ending": FILE_ENDING,
        **extra,
    }
    write_text(root / "dataset.json", json.dumps(content, indent=1) + "\n")


def read_labels(path: Path) -> dict[str, int]:
    """Names and values of the labels, background included, from the `dataset.json` of a one-channel dataset.

    Raises `DatasetError` for what the package does not support: several channels, region-based labels, other
    file endings than `.nii.gz`, values beyond 255.
    """
    content = read_dataset_json(path)
    ending = content.get("file_ending")
    if ending != FILE_ENDING:
        raise DatasetError(
            f"{path}: expected the `file_ending` {FILE_ENDING!r}, found {ending!r}; `promptlesion prepare` converts it"
        )
    return labels_of(content, path)


def labels_of(content: dict[str, Any], path: Path) -> dict[str, int]:
    """Names and values of the labels in the content of a `dataset.json`, whatever format the images have."""
    channels = content.get("channel_names")
    if not isinstance(channels, dict) or len(channels) != 1:
        raise DatasetError(f"{path}: expected one channel in `channel_names`, the CT, found {channels}")
    labels = content.get("labels")
    if not isinstance(labels, dict):
        raise DatasetError(f"{path}: expected `labels`, a table of values by name, found {labels}")
    if labels.get("background") != 0:
        hint = "; nnU-Net v1 wrote names by value, v2 writes values by name" if "0" in labels else ""
        raise DatasetError(f"{path}: expected the label `background` with value 0, found {labels}{hint}")
    checked = {name: _label_value(name, value, path) for name, value in labels.items()}
    if len(set(checked.values())) < len(checked):
        raise DatasetError(f"{path}: expected a value of its own for every label, found {checked}")
    return checked


def read_subject_pattern(path: Path) -> str | None:
    """The pattern of the subject in case names that `prepare` noted in a `dataset.json`, if it wrote that."""
    pattern = read_dataset_json(path).get("subject_pattern")
    if pattern is None:
        return None
    try:
        has_group = isinstance(pattern, str) and re.compile(pattern).groups > 0
    except re.error:
        has_group = False
    if not has_group:
        raise DatasetError(
            f"{path}: expected `subject_pattern`, a regular expression with a group, found {str(pattern)[:80]!r}"
        )
    return str(pattern)


def read_subjects(path: Path) -> dict[str, str]:
    """The subjects by case that `prepare` noted in a `dataset.json`, where names do not show them."""
    subjects = read_dataset_json(path).get("subjects", {})
    if not isinstance(subjects, dict) or not all(isinstance(subject, str) for subject in subjects.values()):
        raise DatasetError(f"{path}: expected `subjects`, subjects by case, found {str(subjects)[:80]}")
    return subjects


def _label_value(name: str, value: object, path: Path) -> int:
    if isinstance(value, list):
        raise DatasetError(
            f"{path}: expected one value for the label {name!r}, found the region {value}; region-based "
            "labels are not supported, give every label a value of its own"
        )
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
        raise DatasetError(f"{path}: expected a whole value from 0 to 255 for the label {name!r}, found {value!r}")
    return value
