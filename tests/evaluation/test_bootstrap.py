"""Bootstrap intervals: the normal theory of the mean, scipy's implementation, and degenerate samples."""

import numpy as np
import pytest
from scipy import stats

from promptlesion.evaluation.bootstrap import bootstrap_interval, paired_bootstrap


def test_half_width_is_the_normal_theorys() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    interval = bootstrap_interval(values, seed=1, num_resamples=4000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low is not None and interval.high is not None
    expected = 1.96 * values.std() / np.sqrt(400)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.06)


def test_two_values_have_the_binomial_distribution() -> None:
    # The mean of a resample of {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    interval = bootstrap_interval([0.0, 1.0], seed=0, level=0.4)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)
    interval = bootstrap_interval([0.0, 1.0], seed=0, level=0.8)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=60)
    ours = bootstrap_interval(values, seed=0, num_resamples=9000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9000, method="percentile", rng=np.random.default_rng(1))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_few_values() -> None:
    assert bootstrap_interval([], seed=0).value is None
    single = bootstrap_interval([0.7], seed=0)
    assert (single.value, single.low, single.high) == (0.7, None, None)


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.5, 0.6, 0.9]
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)


def test_pairing_removes_what_subjects_share() -> None:
    generator = np.random.default_rng(0)
    subjects = generator.normal(0, 10, 30)
    first, second = subjects, subjects + 1 + generator.normal(0, 0.1, 30)
    paired = paired_bootstrap(first, second, seed=0)
    assert paired.low is not None and paired.low > 0.9 and paired.high is not None and paired.high < 1.1


def test_errors() -> None:
    with pytest.raises(ValueError, match="equal numbers of subjects, got 1 and 2"):
        paired_bootstrap([0.1], [0.1, 0.2], seed=0)
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        bootstrap_interval([0.1, 0.2], seed=0, level=95.0)
    with pytest.raises(ValueError, match="expected finite numbers"):
        bootstrap_interval([0.1, float("nan")], seed=0)
