"""Training, validation and test cases, divided by subject."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptlesion.data.dataset import Case, Dataset
from promptlesion.data.spec import DatasetError
from promptlesion.training.atomic import read_text, write_text

SPLITS_FILE = "splits_final.json"


@dataclass(frozen=True)
class Split:
    """Case names of the three parts; no subject occurs in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def split_by_subject(cases: Sequence[Case], *, validation_fraction: float, test_fraction: float, seed: int) -> Split:
    """Draw validation and test subjects; the rest train. Depends on subjects and seed, not on their order.

    A part whose fraction is 0 is empty, any other gets at least one subject. Raises `DatasetError` with fewer subjects
    than there are parts to fill.
    """
    for name, fraction in (("validation", validation_fraction), ("test", test_fraction)):
        if not 0.0 <= fraction < 1.0:
            raise DatasetError(f"{name}_fraction: expected a share from 0 to below 1, found {fraction}")
    subjects = _shuffled_subjects(cases, seed)
    num_parts = 1 + (validation_fraction > 0) + (test_fraction > 0)
    if len(subjects) < num_parts:
        raise DatasetError(
            f"expected at least {num_parts} subjects to split, found {sorted(subjects)}; where nothing is to be held "
            "out, data.validation_fraction and data.test_fraction may be 0"
        )
    num_test = _part_size(test_fraction, len(subjects), reserved=1 + (validation_fraction > 0))
    num_validation = _part_size(validation_fraction, len(subjects), reserved=num_test + 1)
    test, rest = set(subjects[:num_test]), subjects[num_test:]
    validation = set(rest[:num_validation])
    return Split(
        train=_names(case for case in cases if case.subject not in test | validation),
        validation=_names(case for case in cases if case.subject in validation),
        test=_names(case for case in cases if case.subject in test),
    )


def dataset_split(
    dataset: Dataset, *, seed: int, validation_fraction: float = 0.15, test_fraction: float = 0.3
) -> Split:
    """The split of a dataset: the first fold of its `splits_final.json`, else one drawn by subject.

    Where the file names no `test` cases, its `val` cases are held out as test and the validation subjects are
    drawn from its `train` cases, so that nothing that stops or selects a model has seen the test. A subject
    in two parts or an unknown case is a `DatasetError`.
    """
    path = dataset.root / SPLITS_FILE
    if not path.is_file():
        return split_by_subject(
            dataset.cases, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed
        )
    fold = _read_first_fold(path)
    try:
        parts = {key: dataset.select(fold[key]).cases for key in fold}
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    if "test" not in parts:
        subjects = sorted({case.subject for case in parts["train"]})
        if len(subjects) < 1 + (validation_fraction > 0):
            raise DatasetError(f"{path}: expected at least 2 subjects in 'train', found {subjects}")
        drawn = split_by_subject(parts["train"], validation_fraction=validation_fraction, test_fraction=0.0, seed=seed)
        train, validation = (dataset.select(names).cases for names in (drawn.train, drawn.validation))
        parts = {"train": train, "val": validation, "test": parts["val"]}
    _check_apart(parts, path)
    return Split(train=_names(parts["train"]), validation=_names(parts["val"]), test=_names(parts["test"]))


def split_names(path: Path) -> set[str]:
    """Return the cases that the first fold of a `splits_final.json` names."""
    return {name for names in _read_first_fold(path).values() for name in names}


def write_splits(root: Path, split: Split) -> None:
    """Write the split as nnU-Net's `splits_final.json`, one fold, with a `test` part that nnU-Net ignores."""
    fold = {"train": list(split.train), "val": list(split.validation), "test": list(split.test)}
    write_text(root / SPLITS_FILE, json.dumps([fold], indent=1) + "\n")


def _shuffled_subjects(cases: Sequence[Case], seed: int) -> list[str]:
    subjects = sorted({case.subject for case in cases})
    order = np.random.default_rng(seed).permutation(len(subjects))
    return [subjects[index] for index in order]


def _part_size(fraction: float, num_subjects: int, *, reserved: int) -> int:
    return 0 if fraction == 0 else max(1, min(round(fraction * num_subjects), num_subjects - reserved))


def _names(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(case.name for case in cases)


def _read_first_fold(path: Path) -> dict[str, list[str]]:
    try:
        content: Any = json.loads(read_text(path))
    except ValueError as error:
        raise DatasetError(f"{path}: expected a JSON file, found an error: {error}") from error
    fold = content[0] if isinstance(content, list) and content else None
    if not isinstance(fold, dict) or not {"train", "val"} <= set(fold):
        raise DatasetError(f"{path}: expected a list of folds with `train` and `val`, found {str(content)[:80]}")
    parts = {key: fold[key] for key in ("train", "val", "test") if key in fold}
    for key, names in parts.items():
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not is_list or (key == "train" and not names):
            raise DatasetError(f"{path}: expected a list of case names in {key!r}, found {str(names)[:80]}")
    return parts


def _check_apart(parts: dict[str, tuple[Case, ...]], path: Path) -> None:
    seen: dict[str, str] = {}
    for part, cases in parts.items():
        for case in cases:
            other = seen.setdefault(case.subject, part)
            if other != part:
                raise DatasetError(
                    f"{path}: expected every subject in one part, found {case.subject!r} in {other!r} and {part!r}"
                )
