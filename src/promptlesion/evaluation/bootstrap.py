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
