import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Case, Dataset, DatasetError, DatasetSpec
from promptlesion.data.splits import Split, dataset_split, split_by_subject, write_splits


def cases_of(num_subjects: int, scans_each: int = 1) -> tuple[Case, ...]:
    names = [
        (f"s{subject:02d}_{scan}", f"s{subject:02d}") for subject in range(num_subjects) for scan in range(scans_each)
    ]
    return tuple(Case(name, subject, Path(f"{name}_0000.nii.gz"), Path(f"{name}.nii.gz")) for name, subject in names)


@pytest.fixture
def dataset(tmp_path: Path, spec: DatasetSpec) -> Dataset:
    return Dataset(root=tmp_path, spec=spec, labels={"background": 0}, cases=cases_of(8, 2))


def subjects(names: tuple[str, ...]) -> set[str]:
    return {name.split("_")[0] for name in names}


def all_names(split: Split) -> list[str]:
    return sorted((*split.train, *split.validation, *split.test))


@pytest.mark.parametrize("num_subjects", [3, 4, 7, 20, 101])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_case_is_in_one_part_and_every_subject_too(num_subjects: int, seed: int) -> None:
    cases = cases_of(num_subjects, 2)
    split = split_by_subject(cases, validation_fraction=0.15, test_fraction=0.3, seed=seed)
    assert all_names(split) == sorted(case.name for case in cases)
    parts = [subjects(part) for part in (split.train, split.validation, split.test)]
    assert all(parts)
    assert sum(len(part) for part in parts) == num_subjects
    assert len(parts[2]) == max(1, min(round(0.3 * num_subjects), num_subjects - 2))


def test_the_seed_decides_and_the_order_of_the_cases_does_not() -> None:
    cases = cases_of(20, 2)
    shuffled = [cases[index] for index in np.random.default_rng(0).permutation(len(cases))]

    def split(cases_in_some_order: list[Case], seed: int) -> tuple[set[str], ...]:
        found = split_by_subject(cases_in_some_order, validation_fraction=0.2, test_fraction=0.2, seed=seed)
        return set(found.train), set(found.validation), set(found.test)

    assert split(list(cases), 5) == split(shuffled, 5)
    assert split(list(cases), 5) != split(list(cases), 6)


def test_too_few_subjects_or_impossible_fractions() -> None:
    with pytest.raises(DatasetError, match=r"expected at least 3 subjects to split, found \['s00', 's01'\]"):
        split_by_subject(cases_of(2, 9), validation_fraction=0.2, test_fraction=0.2, seed=0)
    with pytest.raises(DatasetError, match=r"test_fraction: expected a share from 0 to below 1, found 1\.5"):
        split_by_subject(cases_of(9), validation_fraction=0.2, test_fraction=1.5, seed=0)
    greedy = split_by_subject(cases_of(9), validation_fraction=0.9, test_fraction=0.9, seed=0)
    assert [len(part) for part in (greedy.train, greedy.validation, greedy.test)] == [1, 1, 7]


def test_a_part_of_which_nothing_is_asked_for_is_empty() -> None:
    """Stage 1 may learn from everybody; the rule that every part has a subject holds for the others."""
    for validation, test, sizes in ((0.0, 0.0, [1, 0, 0]), (0.0, 0.4, [1, 0, 1]), (0.4, 0.0, [1, 1, 0])):
        cases = cases_of(sum(sizes))
        split = split_by_subject(cases, validation_fraction=validation, test_fraction=test, seed=0)
        assert [len(part) for part in (split.train, split.validation, split.test)] == sizes
    with pytest.raises(DatasetError, match=r"at least 2 subjects to split, found \['s00'\]; where nothing"):
        split_by_subject(cases_of(1), validation_fraction=0.0, test_fraction=0.4, seed=0)


def test_a_splits_file_may_hold_nothing_out(dataset: Dataset) -> None:
    names = [case.name for case in dataset.cases]
    (dataset.root / "splits_final.json").write_text(json.dumps([{"train": names, "val": [], "test": []}]))
    assert dataset_split(dataset, seed=0) == Split(train=tuple(names), validation=(), test=())
    (dataset.root / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    split = dataset_split(dataset, seed=0, validation_fraction=0.0)
    assert split == Split(train=tuple(names[:4]), validation=(), test=tuple(names[4:]))


def test_what_is_written_is_the_split_from_then_on(dataset: Dataset) -> None:
    drawn = dataset_split(dataset, seed=3)
    write_splits(dataset.root, drawn)
    assert dataset_split(dataset, seed=4) == drawn
    (fold,) = json.loads((dataset.root / "splits_final.json").read_text())
    assert set(fold) == {"train", "val", "test"}


def test_the_validation_part_of_nnunet_is_the_test_here(dataset: Dataset) -> None:
    names = [case.name for case in dataset.cases]
    fold = {"train": names[:12], "val": names[12:]}
    (dataset.root / "splits_final.json").write_text(json.dumps([fold, {"train": names[4:], "val": names[:4]}]))
    split = dataset_split(dataset, seed=0)
    assert split.test == tuple(names[12:])
    assert sorted((*split.train, *split.validation)) == names[:12]
    assert len(subjects(split.validation)) == 1
    assert subjects(split.validation).isdisjoint(subjects(split.train))


def test_a_subject_on_two_sides_is_refused(dataset: Dataset) -> None:
    names = [case.name for case in dataset.cases]
    for fold, message in (
        (
            {"train": names[:13], "val": names[13:]},
            "found 's06' in 'train' and 'test'|found 's06' in 'val' and 'test'",
        ),
        ({"train": names[:6], "val": names[6:9], "test": names[9:]}, "found 's04' in 'val' and 'test'"),
        ({"train": names[:6], "val": names[5:9], "test": names[10:]}, "found 's02' in 'train' and 'val'"),
    ):
        (dataset.root / "splits_final.json").write_text(json.dumps([fold]))
        with pytest.raises(DatasetError, match=f"expected every subject in one part, {message}"):
            dataset_split(dataset, seed=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a JSON file"),
        ("[]", "expected a list of folds with `train` and `val`"),
        ('[{"train": ["s00_0"]}]', "expected a list of folds with `train` and `val`"),
        ('[{"train": [], "val": ["s00_0"]}]', "expected a list of case names in 'train'"),
        ('[{"train": [1], "val": ["s00_0"]}]', "expected a list of case names in 'train'"),
        ('[{"train": ["s00_0", "s99_0"], "val": ["s01_0"]}]', "found no case named s99_0"),
        (
            '[{"train": ["s00_0"], "val": ["s01_0"]}]',
            r"expected at least 2 subjects in 'train', found \['s00'\]",
        ),
    ],
)
def test_a_splits_file_that_is_none(dataset: Dataset, content: str, message: str) -> None:
    (dataset.root / "splits_final.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        dataset_split(dataset, seed=0)


def test_subjects_not_cases_are_split(make_dataset: Callable[[int], Dataset]) -> None:
    dataset = make_dataset(4)
    one_subject = replace(dataset, cases=tuple(replace(case, subject="same") for case in dataset.cases))
    with pytest.raises(DatasetError, match="expected at least 3 subjects"):
        dataset_split(one_subject, seed=0)


def test_a_split_that_names_another_case_is_named(dataset: Dataset) -> None:
    path = dataset.root / "splits_final.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\ufeff[{"train": ["nobody"], "val": ["' + dataset.cases[0].name + '"]}]', encoding="utf-8")
    with pytest.raises(DatasetError, match=r"splits_final.json: .*found no case named nobody"):
        dataset_split(dataset, seed=0)
