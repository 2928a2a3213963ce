"""Subjects are resampled, not lesions."""

import numpy as np
import pytest
from measure.lesion_bootstrap import lesion_bootstrap

from promptlesion.evaluation.bootstrap import type_mean_bootstrap
from promptlesion.evaluation.results import Estimate


def test_one_lesion_a_subject_is_the_mean_over_subjects() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 80)
    subjects = [f"subject_{index}" for index in range(80)]
    ours = lesion_bootstrap(values.tolist(), subjects, seed=1, num_resamples=8000)
    plain = type_mean_bootstrap(values[:, None], seed=2, num_resamples=8000)
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
