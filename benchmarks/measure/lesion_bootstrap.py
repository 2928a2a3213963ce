"""The interval of a mean over lesions, which are no independent samples."""

from collections.abc import Sequence

import numpy as np

from promptlesion.evaluation.results import Estimate


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
