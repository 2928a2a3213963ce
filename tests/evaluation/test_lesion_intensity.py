"""Brightness inside lesions: the rule for the bias, the AUC by hand and against scikit-free counting."""

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.lesion_intensity import (
    area_under_curve,
    intensity_rows,
    intensity_tolerance_hu,
    mean_hu_by_type,
    prompt_switch,
)
from promptlesion.evaluation.lesions import collect_lesions


def test_tolerance_is_the_larger_of_both() -> None:
    assert intensity_tolerance_hu(600.0) == 150
    assert intensity_tolerance_hu(60.0) == 30
    assert intensity_tolerance_hu(-400.0) == 100


def test_rows_of_dataset_folders(datasets: tuple[Dataset, Dataset]) -> None:
    real, synthetic = datasets
    names = ["hard_plaque", "soft_plaque"]
    real_hu = mean_hu_by_type(collect_lesions(real), names)
    synthetic_hu = mean_hu_by_type(collect_lesions(synthetic, source=real), names)
    (row,) = intensity_rows("synthetic", real_hu, synthetic_hu)  # no real soft lesion, hence no second row
    assert (row.num_real, row.num_compared) == (3, 3)
    assert row.bias_hu == pytest.approx(100, abs=4)
    assert row.relative_bias == pytest.approx(1 / 6, abs=0.01)
    assert row.is_within_tolerance and row.tolerance_hu == pytest.approx(150, abs=1)


@pytest.mark.parametrize(
    ("real", "compared", "holds"),
    [(600.0, 449.0, False), (600.0, 451.0, True), (40.0, 69.0, True), (0.0, 31.0, False)],
)
def test_rule(real: float, compared: float, holds: bool) -> None:
    (row,) = intensity_rows("autoencoded", {"t": np.array([real])}, {"t": np.array([compared])})
    assert row.is_within_tolerance is holds


def test_auc_by_counting() -> None:
    generator = np.random.default_rng(0)
    lower, higher = generator.integers(0, 9, 23).astype(float), generator.integers(3, 12, 17).astype(float)
    difference = higher[:, None] - lower[None]
    expected = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert area_under_curve(lower, higher) == pytest.approx(expected)
    assert area_under_curve(higher, lower) == pytest.approx(1 - expected)
    assert area_under_curve(lower, lower + 100) == 1.0
    with pytest.raises(ValueError, match="AUC: expected values on both sides, got 0 and 17"):
        area_under_curve(np.empty(0), higher)


def test_prompt_switch() -> None:
    mean_hu = {"hard": np.array([550.0, 650.0]), "soft": np.array([90.0, 110.0])}
    switch = prompt_switch("one-hot", mean_hu, {"hard": 640.0, "soft": 65.0})
    assert switch.num_lesions == 2
    assert [row.mean_hu for row in switch.rows] == [600.0, 100.0]
    assert [row.is_within_tolerance for row in switch.rows] == [True, False]
    assert [(pair.first, pair.second, pair.auc) for pair in switch.pairs] == [("hard", "soft", 0.0)]
    with pytest.raises(ValueError, match="expected the same lesions under every prompt"):
        prompt_switch("one-hot", {"hard": np.zeros(2), "soft": np.zeros(3)})


def test_another_tolerance() -> None:
    assert intensity_tolerance_hu(600.0, relative=0.1, absolute_hu=15.0) == 60
    assert intensity_tolerance_hu(-20.0, relative=0.1, absolute_hu=15.0) == 15
