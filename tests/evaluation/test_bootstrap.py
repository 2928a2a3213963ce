"""Bootstrap intervals: the normal theory of the mean, scipy's implementation, and degenerate samples."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from promptlesion.evaluation.bootstrap import (
    group_bootstrap,
    mean_of,
    mean_terms,
    sign_flip_p_value,
    type_mean_bootstrap,
)
from promptlesion.evaluation.results import Estimate


def of_one_type(values: Sequence[float] | np.ndarray, **options: float) -> Estimate:
    return type_mean_bootstrap(np.asarray(values, dtype=np.float64)[:, None], **options)


def test_half_width_is_the_normal_theorys() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    interval = of_one_type(values, seed=1, num_resamples=4000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low is not None and interval.high is not None
    expected = 1.96 * values.std() / np.sqrt(400)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.06)


def test_two_values_have_the_binomial_distribution() -> None:
    # The mean of a resample of {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    interval = of_one_type([0.0, 1.0], seed=0, level=0.4)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)
    interval = of_one_type([0.0, 1.0], seed=0, level=0.8)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2.0, size=60)
    ours = of_one_type([*values, np.nan], seed=0, num_resamples=9000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9000, method="percentile", rng=np.random.default_rng(1))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.02)


def test_few_values() -> None:
    assert of_one_type([], seed=0).value is None
    single = of_one_type([0.7], seed=0)
    assert (single.value, single.low, single.high) == (0.7, None, None)


def test_same_seed_same_interval() -> None:
    values = [0.1, 0.5, 0.6, 0.9]
    assert of_one_type(values, seed=4) == of_one_type(values, seed=4)


def test_a_level_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="level: expected a number between 0 and 1"):
        of_one_type([0.1, 0.2], seed=0, level=95.0)


def test_lesions_of_a_group_are_drawn_together() -> None:
    generator = np.random.default_rng(0)
    values, groups = generator.normal(2.0, 3.0, 200), [f"subject_{index}" for index in range(200)]
    once = group_bootstrap(mean_of, (mean_terms(values), groups), seed=1)
    often = group_bootstrap(mean_of, (mean_terms(np.repeat(values, 9)), np.repeat(groups, 9).tolist()), seed=1)
    assert once.low == pytest.approx(often.low) and once.high == pytest.approx(often.high)
    assert once.value == pytest.approx(values.mean())
    assert once.low is not None and once.high is not None
    assert (once.high - once.low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(200), rel=0.1)


def test_sides_are_drawn_on_their_own() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 300)
    side = mean_terms(values), [str(index) for index in range(300)]
    difference = group_bootstrap(lambda x, y: mean_of(y) - mean_of(x), side, side, seed=0)
    assert difference.value == pytest.approx(0)
    assert difference.low is not None and difference.high is not None
    assert (difference.high - difference.low) / 2 == pytest.approx(1.96 * values.std() * np.sqrt(2 / 300), rel=0.1)


def test_groups_too_few_to_tell() -> None:
    nothing = np.empty(0)
    assert group_bootstrap(mean_of, (mean_terms(nothing), []), seed=0) == Estimate(value=None)
    assert group_bootstrap(mean_of, (mean_terms(np.array([np.nan])), ["one"]), seed=0) == Estimate(value=None)
    alone = mean_terms(np.array([1.0, 3.0, np.nan])), ["one"] * 3
    assert group_bootstrap(mean_of, alone, seed=0) == Estimate(value=2.0)


def test_types_weigh_alike_however_many_subjects_have_them() -> None:
    values = np.full((12, 2), np.nan)
    values[:, 0] = 0.2
    values[:2, 1] = 0.8
    estimate = type_mean_bootstrap(values, seed=0)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5))
    values[:, 1] = np.nan
    assert type_mean_bootstrap(values, seed=0) == Estimate(value=None)
    assert type_mean_bootstrap(values[:1, :1], seed=0) == Estimate(value=0.2)
    assert sign_flip_p_value(values, seed=0) is None


@pytest.mark.parametrize("num_subjects", [3, 8, 12])
def test_exact_p_values_are_scipys(num_subjects: int) -> None:
    differences = np.random.default_rng(num_subjects).normal(0.4, 1.0, num_subjects)
    theirs = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p_value(differences[:, None], seed=0) == pytest.approx(theirs.pvalue)


def test_drawn_p_values_come_near_the_exact_one_and_are_never_0() -> None:
    differences = np.random.default_rng(5).normal(0.4, 1.0, (16, 1))
    exact = sign_flip_p_value(differences, seed=0, num_permutations=2**16)
    drawn = sign_flip_p_value(differences, seed=0, num_permutations=20_000)
    assert exact == pytest.approx(drawn, abs=0.01)
    assert sign_flip_p_value(np.ones((40, 1)), seed=0, num_permutations=999) == 1 / 1000


def test_p_values_of_nothing_and_of_one_sign() -> None:
    assert sign_flip_p_value(np.zeros((5, 1)), seed=0) == 1.0
    assert sign_flip_p_value(np.array([[0.1], [0.2], [0.3], [0.1], [0.9]]), seed=0) == 2 / 2**5
    assert sign_flip_p_value(np.full((4, 2), np.nan), seed=0) is None


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    """A test at 5 % must raise a false alarm in 5 % of the experiments, with subjects that lack a type, too."""
    generator = np.random.default_rng(0)
    alarms = []
    for _ in range(1000):
        differences = generator.normal(0, 1, (9, 2)) * generator.gamma(1.0, size=(9, 1))
        differences[generator.random((9, 2)) < 0.3] = np.nan
        p_value = sign_flip_p_value(differences, seed=0)
        alarms.append(p_value is not None and p_value <= 0.05)
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.02)
