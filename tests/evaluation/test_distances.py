"""Fréchet and kernel distances: identities, closed forms, and a dense reference."""

import math

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


@pytest.mark.parametrize(("num_real", "num_synthetic"), [(20, 15), (9, 30)])
def test_kernel_distance_agrees_with_the_sums_written_out(num_real: int, num_synthetic: int) -> None:
    """Bińkowski et al. 2018, eq. 4, pair by pair in float64, without a matrix product."""
    real, synthetic = _samples(0, num_real, 12), _samples(1, num_synthetic, 12, shift=0.3)

    def kernel(first: np.ndarray, second: np.ndarray) -> float:
        return (math.fsum(a * b for a, b in zip(first.tolist(), second.tolist(), strict=True)) / 12 + 1) ** 3

    def within(side: np.ndarray) -> float:
        total = math.fsum(kernel(a, b) for i, a in enumerate(side) for j, b in enumerate(side) if i != j)
        return total / (len(side) * (len(side) - 1))

    across = math.fsum(kernel(a, b) for a in real for b in synthetic) / (num_real * num_synthetic)
    assert kernel_distance(real, synthetic) == pytest.approx(within(real) + within(synthetic) - 2 * across, rel=1e-10)


def test_features_of_single_precision_are_computed_in_double() -> None:
    real, synthetic = (_samples(seed, 30, 12, shift=50.0).astype(np.float32) for seed in (0, 1))
    for distance in (frechet_distance, kernel_distance):
        expected = distance(real.astype(np.float64), synthetic.astype(np.float64))
        assert distance(real, synthetic) == pytest.approx(expected, rel=1e-9)


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
