"""Bootstrap intervals: the normal theory of the mean, scipy's implementation, and degenerate samples."""

import numpy as np
import pytest
from scipy import stats

from promptlesion.evaluation.bootstrap import bootstrap_interval, lesion_bootstrap, paired_bootstrap
from promptlesion.evaluation.results import Estimate


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


def test_one_lesion_a_subject_is_the_mean_over_subjects() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 80)
    subjects = [f"subject_{index}" for index in range(80)]
    ours = lesion_bootstrap(values.tolist(), subjects, seed=1, num_resamples=8000)
    plain = bootstrap_interval(values, seed=2, num_resamples=8000)
    assert ours.value == pytest.approx(plain.value)
    assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.03)


def test_lesions_of_one_subject_are_no_new_samples() -> None:
    """Every subject's lesions alike: the interval is that of one lesion a subject, however many there are."""
    values = np.random.default_rng(0).normal(5.0, 2.0, 40)
    subjects = [f"subject_{index}" for index in range(40)]
    once = lesion_bootstrap(values.tolist(), subjects, seed=1)
    often = lesion_bootstrap(np.repeat(values, 9).tolist(), np.repeat(subjects, 9).tolist(), seed=1)
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_the_difference_of_the_same_lesions_is_paired() -> None:
    """A constant shift is known exactly, however far apart the lesions are; unpaired it would not be."""
    generator = np.random.default_rng(0)
    values, subjects = generator.normal(0, 100.0, 30), generator.integers(0, 8, 30).astype(str).tolist()
    shifted = (values + 3.0).tolist()
    paired = lesion_bootstrap(shifted, subjects, reference=values.tolist(), reference_subjects=subjects, seed=0)
    assert (paired.value, paired.low, paired.high) == pytest.approx((3.0, 3.0, 3.0))
    others = [f"other {subject}" for subject in subjects]
    unpaired = lesion_bootstrap(shifted, others, reference=values.tolist(), reference_subjects=subjects, seed=0)
    assert unpaired.high - unpaired.low > 20


def test_lesion_bootstrap_of_little() -> None:
    assert lesion_bootstrap([], [], seed=0) == Estimate(value=None)
    assert lesion_bootstrap([1.0, 3.0], ["a", "a"], seed=0) == Estimate(value=2.0)
    with pytest.raises(ValueError, match="expected a subject for each of them"):
        lesion_bootstrap([1.0], [], seed=0)
