"""How near two lesions of strangers come by chance, by their size, and the distance below which it is no chance."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

_MIN_LESIONS = 5
_UNCALIBRATED = 0.05
_LARGEST = 1 - math.sqrt(0.5)
"""A copy shares at least half of its texture's variance with the original, however far apart strangers are."""
_HIGHEST = 0.999
_MAX_DEVIATIONS = 8.0
_MIN_VARIANCE = 0.05
"""Of log voxels: lesions of one size say little about the slope, but do not rule out others either."""


@dataclass(frozen=True)
class CopyThreshold:
    """A line of Fisher's z = artanh(1 − distance) over log voxels, and how far above it a stranger may lie.

    Small lesions have few voxels to disagree in, so their nearest is nearer. `reach` and the two moments make the
    prediction interval of a linear regression; without a fit the distance is a fixed one.
    """

    intercept: float
    slope: float
    reach: float
    mean_log_voxels: float
    sum_of_squares: float
    num_lesions: int

    def at(self, num_voxels: int) -> float:
        """Distance below which a lesion of this size counts as a copy."""
        if self.num_lesions < _MIN_LESIONS:
            return _UNCALIBRATED
        offset = math.log(num_voxels) - self.mean_log_voxels
        spread = math.sqrt(1 + 1 / self.num_lesions + offset**2 / self.sum_of_squares)
        limit = 1 - math.tanh(self.intercept + self.slope * offset + self.reach * spread)
        return min(max(limit, 1e-3), _LARGEST)


def fit_copy_threshold(
    distances: Sequence[float], num_voxels: Sequence[int], *, false_alarm_rate: float
) -> CopyThreshold:
    """Fit the threshold to real lesions' distances to their nearest of another subject.

    One lesion under two names would hide every copy, so what is nearer than the median by more than 8 robust standard
    deviations is left out. Fewer than 5 lesions give the fixed distance 0.05.
    """
    log_voxels = np.log(np.asarray(num_voxels, dtype=np.float64))
    scores = np.arctanh(np.clip(1 - np.asarray(distances, dtype=np.float64), -_HIGHEST, _HIGHEST))
    if len(scores) >= _MIN_LESIONS:
        above = scores - np.median(scores)
        is_usual = above <= _MAX_DEVIATIONS * float(stats.median_abs_deviation(scores, scale="normal"))
        if is_usual.sum() >= _MIN_LESIONS:
            return _fit(log_voxels[is_usual], scores[is_usual], false_alarm_rate)
    return CopyThreshold(0.0, 0.0, 0.0, 0.0, 1.0, num_lesions=0)


def _fit(
    log_voxels: Float64[np.ndarray, " lesions"], scores: Float64[np.ndarray, " lesions"], rate: float
) -> CopyThreshold:
    offsets = log_voxels - log_voxels.mean()
    sum_of_squares = max(float((offsets**2).sum()), _MIN_VARIANCE * len(scores))
    slope = float((offsets * scores).sum()) / sum_of_squares
    left = scores - scores.mean() - slope * offsets
    freedom = len(scores) - 2
    deviation = math.sqrt(float((left**2).sum()) / freedom)
    reach = float(stats.t.ppf(1 - rate, freedom)) * deviation
    return CopyThreshold(float(scores.mean()), slope, reach, float(log_voxels.mean()), sum_of_squares, len(scores))
