"""Fréchet and kernel distances: identities, closed forms, and a dense reference."""

import numpy as np
import pytest
from scipy import linalg

from promptlesion.evaluation.distances import distance_interval, frechet_distance, kernel_distance


def _samples(seed: int, num_samples: int, dimension: int, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimension, dimension)) / np.sqrt(dimension)
    return generator.normal(size=(num_samples, dimension)) @ mixing + shift


def _dense_frechet_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    first, second = np.cov(real, rowvar=False), np.cov(synthetic, rowvar=False)
    root = linalg.sqrtm(first @ second)
    gap = real.mean(axis=0) - synthetic.mean(axis=0)
    return float(gap @ gap + np.trace(first + second - 2 * root.real))


@pytest.mark.parametrize(("num_real", "num_synthetic"), [(50, 40), (60, 9), (200, 150)])
def test_frechet_distance_agrees_with_the_dense_formula(num_real: int, num_synthetic: int) -> None:
    real, synthetic = _samples(0, num_real, 12), _samples(1, num_synthetic, 12, shift=0.3)
    assert frechet_distance(real, synthetic) == pytest.approx(_dense_frechet_distance(real, synthetic), rel=1e-6)


def test_low_rank_agrees_with_the_dense_formula_once_made_regular() -> None:
    real, synthetic = _samples(0, 8, 20), _samples(1, 6, 20, shift=0.2)
    first, second = (np.cov(side, rowvar=False) + 1e-9 * np.eye(20) for side in (real, synthetic))
    values = np.sqrt(np.clip(linalg.eigvals(first @ second).real, 0, None))
    gap = real.mean(axis=0) - synthetic.mean(axis=0)
    expected = gap @ gap + np.trace(first + second) - 2 * values.sum()
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("num_samples", [7, 90])
def test_distance_to_itself_is_zero_and_order_does_not_matter(num_samples: int) -> None:
    features = _samples(0, num_samples, 30)
    assert frechet_distance(features, features[::-1].copy()) == pytest.approx(0, abs=1e-9)


def test_a_shift_costs_its_square_and_a_scale_its_own() -> None:
    features = _samples(0, 40, 6)
    assert frechet_distance(features, features + 0.5) == pytest.approx(6 * 0.25)
    centred = features - features.mean(axis=0)
    variance = np.trace(np.cov(centred, rowvar=False))
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance)  # (3 − 1)² tr Σ


def test_symmetry() -> None:
    real, synthetic = _samples(0, 20, 30), _samples(1, 25, 30, shift=0.1)
    for distance in (frechet_distance, kernel_distance):
        assert distance(real, synthetic) == pytest.approx(distance(synthetic, real))


def test_kernel_distance_by_hand() -> None:
    real, synthetic = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 0.0], [2.0, 2.0]])
    # k(x, y) = (x·y / 2 + 1)³: within real 1, within synthetic 1, across 1, 8, 1, 8.
    assert kernel_distance(real, synthetic) == pytest.approx(1 + 1 - 2 * 4.5)


def test_kernel_distance_is_unbiased() -> None:
    estimates = [kernel_distance(_samples(s, 12, 5), _samples(s + 500, 10, 5)) for s in range(300)]
    assert abs(np.mean(estimates)) < 3 * np.std(estimates) / np.sqrt(300)
    assert min(estimates) < 0


def test_interval_holds_the_estimate_and_narrows_with_n() -> None:
    widths = []
    for num_samples in (20, 200):
        real, synthetic = _samples(0, num_samples, 8), _samples(1, num_samples, 8, shift=0.5)
        interval = distance_interval(frechet_distance, real, synthetic, seed=0, num_resamples=60, lowest=0.0)
        assert interval.value == frechet_distance(real, synthetic)
        assert interval.low is not None and interval.high is not None
        assert 0 <= interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 1.8


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least 2 samples a side, got 1 and 5"):
        frechet_distance(_samples(0, 1, 4), _samples(0, 5, 4))
    with pytest.raises(ValueError, match="equal dimensions, got 4 and 3"):
        kernel_distance(_samples(0, 5, 4), _samples(0, 5, 3))
