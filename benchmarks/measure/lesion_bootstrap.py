"""The interval of a mean over lesions, which are no independent samples."""

from collections.abc import Sequence

import numpy as np

from promptlesion.evaluation.bootstrap import group_bootstrap, mean_of
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
    terms = np.zeros((len(values) + len(reference), 4))
    terms[: len(values), :2] = np.column_stack([values, np.ones(len(values))])
    if not len(reference):
        side = terms[:, :2], list(subjects)
        return group_bootstrap(mean_of, side, seed=seed, num_resamples=num_resamples, level=level)
    terms[len(values) :, 2:] = np.column_stack([reference, np.ones(len(reference))])
    return group_bootstrap(
        lambda sums: mean_of(sums[:, :2]) - mean_of(sums[:, 2:]),
        (terms, [*subjects, *reference_subjects]),
        seed=seed,
        num_resamples=num_resamples,
        level=level,
    )
