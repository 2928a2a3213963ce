"""Fewer real subjects: nested, and with every lesion type from the start."""

from itertools import pairwise

import pytest

from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.experiment.subjects import fewer_subjects, subject_counts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Ten subjects: all have the common type, and the rare one only two of those that train."""
    import numpy as np

    from promptlesion.data.dataset import write_case, write_dataset_json, write_spec
    from promptlesion.data.spec import DatasetSpec, LesionType
    from promptlesion.data.splits import Split, write_splits
    from promptlesion.data.volume import Volume

    root = tmp_path_factory.mktemp("rare") / "data"
    for index in range(10):
        labels = np.zeros((12, 14, 12), dtype=np.uint8)
        labels[:, :, :10] = 1
        labels[2:5, 2:5, 2:5] = 2
        if index in (2, 7):
            labels[8:11, 8:11, 5:8] = 3
        hu = np.array([-900, 50, 500, 20], dtype=np.int16)[labels]
        write_case(root, f"rare_{index}", Volume(hu, np.eye(4)), Volume(labels, np.eye(4)))
    names = {"background": 0, "organ": 1, "common": 2, "rare": 3}
    write_dataset_json(root, labels=names, num_training=10, extra={})
    types = [
        LesionType(name=name, label=names[name], host=("organ",), diameter_mm=(2.0, 6.0), hu=(0.0, 600.0))
        for name in ("common", "rare")
    ]
    spec = DatasetSpec(window_hu=(-100.0, 600.0), spacing_mm=(1.0, 1.0, 1.0), lesions=tuple(types))
    write_spec(spec, root / "lesions.toml")
    train = tuple(f"rare_{index}" for index in (1, 2, 3, 4, 6, 7))
    write_splits(root, Split(train=train, validation=("rare_5",), test=("rare_0",)))
    return prepare_dataset(root, cache=root.parent / "cache", validation_fraction=0.1, test_fraction=0.1, seed=0)


def subjects(prepared: PreparedDataset) -> set[str]:
    return {case.subject for case in prepared.train}


def test_fractions_are_numbers_of_subjects() -> None:
    assert subject_counts((1.0, 0.1, 0.25, 0.5), 20) == (2, 5, 10, 20)
    assert subject_counts((0.01, 0.02, 1.0), 20) == (1, 20)  # never none, and the same number once


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="--real-fractions: expected shares above 0 and up to 1"):
        subject_counts((fraction,), 20)


@pytest.mark.parametrize("seed", range(5))
def test_fewer_are_among_more_and_the_rest_stays(prepared: PreparedDataset, seed: int) -> None:
    chosen = [fewer_subjects(prepared, number, seed=seed) for number in range(1, 7)]
    assert [len(subjects(part)) for part in chosen] == [1, 2, 3, 4, 5, 6]
    for smaller, larger in pairwise(chosen):
        assert subjects(smaller) < subjects(larger)
    for part in chosen:
        assert (part.validation, part.test) == (prepared.validation, prepared.test)
        assert part.split.train == tuple(case.name for case in part.train)
    assert subjects(chosen[-1]) == subjects(prepared)


@pytest.mark.parametrize("seed", range(5))
def test_two_subjects_have_the_rare_type_too(prepared: PreparedDataset, seed: int) -> None:
    part = fewer_subjects(prepared, 2, seed=seed)
    assert {lesion.type_index for case in part.train for lesion in case.lesions} == {0, 1}


def test_the_order_is_drawn(prepared: PreparedDataset) -> None:
    assert len({frozenset(subjects(fewer_subjects(prepared, 3, seed=seed))) for seed in range(8)}) > 1
