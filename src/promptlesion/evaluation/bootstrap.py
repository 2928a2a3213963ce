"""Bootstrap intervals over subjects, standard errors of distances, and the paired permutation test of two methods."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64

from promptlesion.evaluation.results import Estimate


def type_mean_bootstrap(
    values: Float64[np.ndarray, "subjects types"], *, seed: int, num_resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """Estimate the mean over lesion types of the mean over subjects, with its percentile bootstrap (Efron 1979).

    Whole subjects are resampled. One subject alone has no interval: it says nothing about the spread between subjects.

    NaN is *not counted*: a subject has not every type. Draws that leave a type without a subject are left out. A type
    without any subject makes the estimate None, for a mean over other types would be another quantity.

    Args:
        values: one a subject and type; one type for a plain mean over subjects.
        seed: of the draws.
        num_resamples: draws.
        level: of the interval.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    values = values[~np.isnan(values).all(axis=1)]
    is_counted = ~np.isnan(values)
    if not values.size or not is_counted.any(axis=0).all():
        return Estimate(value=None)
    sums, counts = np.where(is_counted, values, 0.0), is_counted.astype(np.float64)
    estimate = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    if len(values) == 1:
        return Estimate(value=estimate)
    draws = _subject_draws(len(values), seed, num_resamples)
    resampled_counts = draws @ counts
    is_complete = (resampled_counts > 0).all(axis=1)
    means = ((draws @ sums)[is_complete] / resampled_counts[is_complete]).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=estimate, low=float(low), high=float(high))


def group_bootstrap(
    statistic: Callable[..., Float64[np.ndarray, " draws"]],
    *sides: tuple[Float64[np.ndarray, "_ _"], Sequence[str]],
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate what follows from sums over lesions, with its percentile bootstrap over the groups they come in.

    Lesions of a subject, or of a case, are no independent samples, so whole groups are drawn, those of each side on
    their own. Draws of which the statistic cannot be told are left out; a side of one group gives no interval.

    Args:
        statistic: takes each side's sums, `draws terms`, and gives a figure a draw, not finite where there is none.
        sides: `lesions terms`, what of every lesion is summed, and the group of each.
        seed: of the draws.
        num_resamples: draws.
        level: of the interval.
    """
    if not all(len(terms) for terms, _ in sides):
        return Estimate(value=None)
    found, resampled = [], []
    for index, (terms, groups) in enumerate(sides):
        names, group = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.stack([np.bincount(group, column, minlength=len(names)) for column in terms.T], axis=1)
        found.append(sums.sum(axis=0, keepdims=True))
        resampled.append(_subject_draws(len(names), (seed, index), num_resamples) @ sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        value, draws = float(statistic(*found)[0]), statistic(*resampled)
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value):
        return Estimate(value=None)
    if not draws.size or any(len(set(groups)) < 2 for _, groups in sides):
        return Estimate(value=value)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=value, low=float(low), high=float(high))


def mean_terms(values: Float64[np.ndarray, " lesions"]) -> Float64[np.ndarray, "lesions 2"]:
    """Return what `group_bootstrap` sums for a mean: values and their number; NaN does not count."""
    is_counted: Bool[np.ndarray, " lesions"] = ~np.isnan(values)
    return np.column_stack([np.where(is_counted, values, 0.0), is_counted])


def mean_of(sums: Float64[np.ndarray, "draws 2"]) -> Float64[np.ndarray, " draws"]:
    """Return the mean from the sums of `mean_terms`."""
    means: Float64[np.ndarray, " draws"] = sums[:, 0] / sums[:, 1]
    return means


def sign_flip_p_value(
    differences: Float64[np.ndarray, "subjects types"], *, seed: int, num_permutations: int = 10_000
) -> float | None:
    """Two-sided p-value of no difference between two methods, by the paired permutation test over subjects.

    If the methods were alike, each subject's differences could as well have the other sign, all of its types together.
    The statistic is the mean over types of the mean over subjects, its distribution that under every choice of signs
    where there are no more than `num_permutations` of them (exact), else under as many drawn ones, the one found
    counted with them (Phipson & Smyth 2010), so that p is never 0.

    Args:
        differences: one a subject and type, NaN where not counted.
        seed: of the drawn signs.
        num_permutations: drawn signs.

    Returns:
        The p-value; None where a type has no subject. At n subjects it is 2 / 2^n or more.
    """
    differences = differences[~np.isnan(differences).all(axis=1)]
    is_counted = ~np.isnan(differences)
    if not differences.size or not is_counted.any(axis=0).all():
        return None
    terms = np.where(is_counted, differences, 0.0) / is_counted.sum(axis=0)
    per_subject = terms.mean(axis=1)
    found = abs(per_subject.sum())
    is_exact = len(per_subject) < 63 and 2 ** len(per_subject) <= num_permutations
    signs = _all_signs(len(per_subject)) if is_exact else _drawn_signs(len(per_subject), seed, num_permutations)
    num_as_large = int((np.abs(signs @ per_subject) >= found - 1e-12 * max(1.0, found)).sum())
    return num_as_large / len(signs) if is_exact else (num_as_large + 1) / (len(signs) + 1)


# A table asks for the same draws hundreds of times.
@lru_cache(maxsize=16)
def _subject_draws(
    num_subjects: int, seed: int | tuple[int, int], num_resamples: int
) -> Float64[np.ndarray, "resamples subjects"]:
    """How often each subject is in each resample."""
    drawn = np.random.default_rng(seed).integers(0, num_subjects, (num_resamples, num_subjects))
    return np.stack([np.bincount(row, minlength=num_subjects) for row in drawn]).astype(np.float64)


@lru_cache(maxsize=16)
def _all_signs(num_subjects: int) -> Float64[np.ndarray, "choices subjects"]:
    """Every choice of signs."""
    return 1.0 - 2.0 * ((np.arange(2**num_subjects)[:, None] >> np.arange(num_subjects)) & 1)


@lru_cache(maxsize=16)
def _drawn_signs(num_subjects: int, seed: int, num_permutations: int) -> Float64[np.ndarray, "choices subjects"]:
    """Signs drawn by chance."""
    return 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (num_permutations, num_subjects))
