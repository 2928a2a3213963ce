"""Bootstrap intervals: percentile intervals of a mean over subjects, and standard errors of distances."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from promptlesion.evaluation.results import Estimate


def bootstrap_interval(
    values: Float[np.ndarray, " subjects"] | Sequence[float],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate the mean with its percentile bootstrap interval (Efron 1979); one value a subject.

    No values give an estimate of None, a single one an estimate without an interval: one subject says nothing
    about the spread between subjects.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError("values: expected finite numbers; leave out what was not counted")
    if sample.size == 0:
        return Estimate(value=None)
    if sample.size == 1:
        return Estimate(value=float(sample[0]))
    generator = np.random.default_rng(seed)
    means = sample[generator.integers(0, sample.size, (num_resamples, sample.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(sample.mean()), low=float(low), high=float(high))


def paired_bootstrap(
    first: Float[np.ndarray, " subjects"] | Sequence[float],
    second: Float[np.ndarray, " subjects"] | Sequence[float],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate the mean of second − first, where both belong to the same subjects in the same order."""
    if len(first) != len(second):
        raise ValueError(f"paired values: expected equal numbers of subjects, got {len(first)} and {len(second)}")
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return bootstrap_interval(difference, seed=seed, num_resamples=num_resamples, level=level)


def lesion_bootstrap(
    values: Sequence[float],
    subjects: Sequence[str],
    *,
    reference: Sequence[float] = (),
    reference_subjects: Sequence[str] = (),
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate the mean over lesions, or its difference from a reference's mean, resampling whole subjects.

    Lesions of a subject are no independent samples, so subjects are drawn, each with all its lesions on both sides;
    values and references of the same lesions in the same subjects thereby give the interval of the paired difference.

    Args:
        values: one a lesion.
        subjects: whose lesion each of them is.
        reference: the values to subtract the mean of; none for the mean itself.
        reference_subjects: likewise.
        seed: of the draws.
        num_resamples: draws; those that leave a side without a lesion are not counted.
        level: of the interval.

    Returns:
        The estimate: None where a side has no value, without an interval where there is one subject.
    """
    if len(values) != len(subjects) or len(reference) != len(reference_subjects):
        raise ValueError("values: expected a subject for each of them, on both sides")
    if not len(values):
        return Estimate(value=None)
    names = sorted({*subjects, *reference_subjects})
    sides = [(values, subjects), *([(reference, reference_subjects)] if len(reference) else [])]
    sums, counts = np.zeros((2, len(sides), len(names)))
    for side, (numbers, owners) in enumerate(sides):
        for number, owner in zip(numbers, owners, strict=True):
            sums[side, names.index(owner)] += number
            counts[side, names.index(owner)] += 1
    means = sums.sum(axis=1) / counts.sum(axis=1)
    estimate = float(means[0] - means[1]) if len(sides) == 2 else float(means[0])
    if len(names) == 1:
        return Estimate(value=estimate)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), num_resamples)
    resampled_sums, resampled_counts = draws @ sums.T, draws @ counts.T
    is_counted = (resampled_counts > 0).all(axis=1)
    resampled = resampled_sums[is_counted] / resampled_counts[is_counted]
    differences = resampled[:, 0] - resampled[:, 1] if len(sides) == 2 else resampled[:, 0]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=estimate, low=float(low), high=float(high))
