import numpy as np
import pytest
import torch

from promptlesion.segmentation.label_classes import IGNORED_CLASS, LabelClasses

LABELS = {"background": 0, "wall": 2, "hard_plaque": 5, "soft_plaque": 9}


def test_values_with_gaps_become_consecutive_classes_and_come_back() -> None:
    classes = LabelClasses.of_labels(LABELS)
    assert classes.values == (0, 2, 5, 9)
    assert classes.num_classes == 4
    labels = torch.from_numpy(np.random.default_rng(0).choice(np.array([0, 2, 5, 9], dtype=np.uint8), (2, 1, 3, 4, 5)))
    indices = classes.to_classes(labels)
    assert torch.equal(torch.unique(indices), torch.arange(4, dtype=torch.uint8))
    assert np.array_equal(classes.to_values(indices[0, 0].numpy()), labels[0, 0].numpy())


def test_order_of_names_does_not_matter() -> None:
    assert LabelClasses.of_labels({"b": 9, "background": 0, "a": 2}).values == (0, 2, 9)


def test_unknown_values_are_refused() -> None:
    labels = torch.tensor([0, 2, 3], dtype=torch.uint8).reshape(1, 1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"expected the values \(0, 2, 5, 9\); found \[3\]"):
        LabelClasses.of_labels(LABELS).to_classes(labels)


@pytest.mark.parametrize("values", [(1, 2), (0,), (0, 256)])
def test_labels_without_background_or_foreground_are_refused(values: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected 0"):
        LabelClasses(values)


def test_nnunets_ignore_is_no_class_and_is_told_apart() -> None:
    classes = LabelClasses.of_labels({**LABELS, "ignore": 7})
    assert classes.values == (0, 2, 5, 9)
    labels = torch.tensor([0, 7, 9], dtype=torch.uint8).reshape(1, 1, 3, 1, 1)
    assert classes.to_classes(labels).flatten().tolist() == [0, IGNORED_CLASS, 3]
    assert LabelClasses.of_labels(LABELS).ignored is None
