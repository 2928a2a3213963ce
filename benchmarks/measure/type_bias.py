"""How much brighter or darker lesions of a type are than the real ones, with its interval over subjects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from measure.lesion_bootstrap import lesion_bootstrap
from promptlesion.data.intensity import intensity_tolerance_hu
from promptlesion.evaluation.results import Estimate


@dataclass(frozen=True)
class TypeBias:
    """Mean HU inside lesions of one type, compared with the real ones; the bias with its interval over subjects."""

    lesion_type: str
    compared: str
    num_real: int
    num_compared: int
    real_mean_hu: float
    compared_mean_hu: float
    bias: Estimate
    tolerance_hu: float

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the mean is as near to the real one as allowed."""
        return abs(self.compared_mean_hu - self.real_mean_hu) <= self.tolerance_hu


def type_bias(
    lesion_type: str,
    compared: str,
    *,
    real_hu: Sequence[float],
    real_subjects: Sequence[str],
    compared_hu: Sequence[float],
    compared_subjects: Sequence[str],
    relative_tolerance: float,
    absolute_tolerance_hu: float,
    seed: int,
    num_resamples: int = 2000,
) -> TypeBias:
    """Compare mean HU of lesions of one type, the interval from resampling subjects with all their lesions.

    Raises:
        ValueError: a side has no lesion.
    """
    if not len(real_hu) or not len(compared_hu):
        raise ValueError(f"{lesion_type}, {compared}: expected lesions on both sides; found none on one")
    real_mean_hu = float(np.mean(real_hu))
    return TypeBias(
        lesion_type=lesion_type,
        compared=compared,
        num_real=len(real_hu),
        num_compared=len(compared_hu),
        real_mean_hu=real_mean_hu,
        compared_mean_hu=float(np.mean(compared_hu)),
        bias=lesion_bootstrap(
            compared_hu,
            compared_subjects,
            reference=real_hu,
            reference_subjects=real_subjects,
            seed=seed,
            num_resamples=num_resamples,
        ),
        tolerance_hu=intensity_tolerance_hu(
            real_mean_hu, relative=relative_tolerance, absolute_hu=absolute_tolerance_hu
        ),
    )
