"""A dataset folder made ready: cached, split by subject, and prepared once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from promptlesion.data.dataset import Dataset, open_dataset, write_spec
from promptlesion.data.prepared import PreparedDataset, cached_cases, prepare_dataset
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import Split, write_splits


def prepare(root: Path, cache: Path, lesions: Path | None = None) -> PreparedDataset:
    return prepare_dataset(root, cache=cache, lesions=lesions, validation_fraction=0.2, test_fraction=0.4, seed=1)


def test_parts_are_those_of_the_split_and_hold_every_case_once(
    make_dataset: Callable[[int], Dataset], tmp_path: Path
) -> None:
    dataset = make_dataset(5)
    prepared = prepare(dataset.root, tmp_path / "cache")
    assert (len(prepared.train), len(prepared.validation), len(prepared.test)) == (2, 1, 2)
    for name in ("train", "validation", "test"):
        cached = getattr(prepared, name)
        assert tuple(case.name for case in cached) == getattr(prepared.split, name)
        assert {case.name for case in prepared.part(name).cases} == {case.name for case in cached}
        assert prepared.part(name).root == dataset.root
    names = [case.name for case in (*prepared.train, *prepared.validation, *prepared.test)]
    assert sorted(names) == [case.name for case in dataset.cases]


def test_the_folders_own_split_comes_first(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(3)
    split = Split(train=("case_002",), validation=("case_000",), test=("case_001",))
    write_splits(dataset.root, split)
    assert prepare(dataset.root, tmp_path / "cache").split == split


def test_nothing_is_prepared_twice(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(3)
    prepare(dataset.root, tmp_path / "cache")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    prepare(dataset.root, tmp_path / "cache")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before


def test_two_datasets_of_one_name_do_not_share_a_folder(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(1)
    elsewhere = tmp_path / "elsewhere" / dataset.root.name
    shutil.copytree(dataset.root, elsewhere)
    folders = {cached_cases(open_dataset(root), tmp_path / "cache")[0].folder for root in (dataset.root, elsewhere)}
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "cache"}


def test_lesions_may_come_from_another_file(make_dataset: Callable[[int], Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(3)
    other = dataset.spec.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
    write_spec(other, tmp_path / "other.toml")
    (dataset.root / "lesions.toml").unlink()
    assert prepare(dataset.root, tmp_path / "cache", lesions=tmp_path / "other.toml").dataset.spec == other
    with pytest.raises(DatasetError, match=r"lesions\.toml"):
        prepare(dataset.root, tmp_path / "cache")
