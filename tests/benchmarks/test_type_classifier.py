"""Linear discriminants against closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
from measure.type_classifier import balanced_accuracy, confusion, fit_type_classifier, intensity_features
from scipy.stats import norm

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.lesions import LesionCrop


def gaussians(num: int, centers: np.ndarray, mixing: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    types = np.arange(num) % len(centers)
    return centers[types] + generator.normal(size=(num, len(mixing))) @ mixing.T, types


def test_two_gaussians_are_told_apart_as_well_as_they_can_be() -> None:
    """The Bayes rate of equal covariances is Φ(Δ/2), Δ the Mahalanobis distance."""
    mixing = np.array([[2.0, 0.0], [1.5, 0.5]])
    centers = np.array([[0.0, 0.0], [1.0, 2.0]])
    features, types = gaussians(20_000, centers, mixing, 0)
    classifier = fit_type_classifier(features, types, num_types=2, shrinkage=0.0)
    unseen, truth = gaussians(20_000, centers, mixing, 1)
    delta = np.linalg.norm(np.linalg.solve(mixing, centers[1] - centers[0]))
    assert (classifier(unseen) == truth).mean() == pytest.approx(norm.cdf(delta / 2), abs=0.01)


def test_scale_and_offset_of_the_features_do_not_matter() -> None:
    centers = np.array([[0.0, 0, 0], [2, 0, 1], [0, 3, 0]])
    features, types = gaussians(90, centers, np.eye(3), 0)
    unseen, _ = gaussians(60, centers, np.eye(3), 1)
    told = fit_type_classifier(features, types, num_types=3)(unseen)
    scale, offset = np.array([1e-3, 50.0, 7.0]), np.array([4.0, -1e4, 0.0])
    again = fit_type_classifier(features * scale + offset, types, num_types=3)(unseen * scale + offset)
    np.testing.assert_array_equal(told, again)


def test_more_features_than_lesions_and_constant_ones_are_no_trouble() -> None:
    generator = np.random.default_rng(0)
    features = np.hstack([generator.normal(size=(12, 40)), np.ones((12, 2))])
    types = np.arange(12) % 3
    features[:, 0] += 30 * types
    np.testing.assert_array_equal(fit_type_classifier(features, types, num_types=3)(features), types)


@pytest.mark.parametrize("types", [[0, 0, 1, 1], [0, 0, 1, 1, 2], [0, 0, 1, 1, 3, 3]])
def test_a_type_without_two_lesions_is_an_error(types: list[int]) -> None:
    with pytest.raises(ValueError, match="expected at least two lesions of each of 3 types"):
        fit_type_classifier(np.zeros((len(types), 2)), types, num_types=3)


def test_intensity_features_are_those_of_the_voxels_inside(make_ball: Callable[[int], LesionCrop]) -> None:
    window = HUWindow(-1000.0, 3000.0)
    lesions = [make_ball(seed) for seed in (0, 1)]
    features = intensity_features(lesions, window)
    assert features.shape == (2, 7)
    for row, lesion in zip(features, lesions, strict=True):
        assert window.to_hu(float(row[0])) == pytest.approx(lesion.mean_hu, abs=0.1)
        assert window.to_hu(float(row[4])) == pytest.approx(float(np.median(lesion.voxels_hu)), abs=0.1)
        assert (np.diff(row[2:]) >= 0).all()
    assert intensity_features([], window).shape == (0, 7)


def test_confusion_counts_rows_by_what_was_asked_for() -> None:
    counts = confusion(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2, 2]), num_types=3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 2]]


def test_balanced_accuracy_weighs_types_alike_and_never_leaves_its_range() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    told = np.where(np.arange(100) < 95, 0, 1)
    estimate = balanced_accuracy(truth, told, seed=0)
    assert estimate.value == 0.75
    # the standard error of the rarer type's share of one half, halved: 0.5 · √(0.25 / 10)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.5 * np.sqrt(0.25 / 10), rel=0.15)
    perfect = balanced_accuracy(truth, truth, seed=0)
    assert (perfect.value, perfect.low, perfect.high) == (1, 1, 1)
