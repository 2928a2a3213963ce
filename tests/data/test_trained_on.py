"""Whom a model learned from is refused where the same people are held out, and only there."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.cache import CachedCase
from promptlesion.data.content import voxels_hash
from promptlesion.data.dataset import Dataset, write_case
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import Split
from promptlesion.data.trained_on import TrainedOn, check_unseen, trained_on
from promptlesion.data.volume import oriented_volume, read_volume

SPLIT = Split(train=("tiny_0", "tiny_1"), validation=("tiny_2",), test=("tiny_3",))


def test_a_card_says_whom_a_model_learned_from(tiny_cases: list[CachedCase], tiny_data: Dataset) -> None:
    found = trained_on(tiny_cases[:2])
    assert found.subjects == {"tiny_0", "tiny_1"}
    assert found.scan_hashes == {voxels_hash(read_volume(case.image_path).array) for case in tiny_data.cases[:2]}
    assert TrainedOn.of_cards(found.as_card()) == found
    others = trained_on(tiny_cases[1:3])
    assert TrainedOn.of_cards(found.as_card(), others.as_card(), {}) == trained_on(tiny_cases[:3])


def test_who_trained_may_train_again(tiny_cases: list[CachedCase], tiny_data: Dataset) -> None:
    check_unseen(trained_on(tiny_cases[:2]), tiny_data, SPLIT, source="model")
    check_unseen(TrainedOn(), tiny_data, SPLIT, source="model")
    check_unseen(TrainedOn(frozenset({"somebody"})), tiny_data, SPLIT, source="model")


@pytest.mark.parametrize("is_old_card", [False, True])
def test_who_validates_or_tests_now_is_refused_by_name(
    tiny_cases: list[CachedCase], tiny_data: Dataset, is_old_card: bool
) -> None:
    learned_from = trained_on(tiny_cases[1:])
    if is_old_card:
        learned_from = TrainedOn(learned_from.subjects)
    with pytest.raises(
        DatasetError, match=r"^runs/a: expected .*found 'tiny_2' \(validation part\) and 'tiny_3' \(test part\)"
    ):
        check_unseen(learned_from, tiny_data, SPLIT, source=Path("runs/a"))


def test_another_scan_of_a_subject_is_refused_too_where_the_dataset_is_the_same(
    tiny_cases: list[CachedCase], tiny_data: Dataset
) -> None:
    """The held-out scan itself was never trained on, but another of the same subject was."""
    cases = [
        replace(case, subject="both" if case.name in ("tiny_1", "tiny_3") else case.name) for case in tiny_data.cases
    ]
    learned_from = trained_on([replace(tiny_cases[1], subject="both")])
    with pytest.raises(DatasetError, match=r"'both' \(test part\)"):
        check_unseen(learned_from, replace(tiny_data, cases=tuple(cases)), SPLIT, source="model")


def test_the_same_scans_in_other_files_are_the_same_people(
    tiny_cases: list[CachedCase], tiny_data: Dataset, tmp_path: Path
) -> None:
    """Prepared again by another version, or stored as another number type and turned."""
    for case in tiny_data.cases:
        image = read_volume(case.image_path)
        turned = oriented_volume(image.array[::-1].astype(np.float32), image.affine @ flip_of(image.shape))
        write_case(tmp_path, case.name, turned, read_volume(case.label_path))
    cases = tuple(replace(case, image_path=tmp_path / "imagesTr" / case.image_path.name) for case in tiny_data.cases)
    with pytest.raises(DatasetError, match="'tiny_3'"):
        check_unseen(trained_on(tiny_cases), replace(tiny_data, cases=cases), SPLIT, source="the model")


def flip_of(shape: tuple[int, int, int]) -> np.ndarray:
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = shape[0] - 1
    return flip


def test_subjects_of_another_dataset_that_are_named_alike_are_other_people(
    tiny_cases: list[CachedCase], tiny_data: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for case in tiny_data.cases:
        image, labels = read_volume(case.image_path), read_volume(case.label_path)
        write_case(tmp_path, case.name, image.with_array(image.array + 1), labels)
    cases = tuple(replace(case, image_path=tmp_path / "imagesTr" / case.image_path.name) for case in tiny_data.cases)
    check_unseen(trained_on(tiny_cases), replace(tiny_data, cases=cases), SPLIT, source="the model")
    assert "'tiny_2' (validation part) and 'tiny_3' (test part)" in caplog.text
    assert "taken for other people" in caplog.text
