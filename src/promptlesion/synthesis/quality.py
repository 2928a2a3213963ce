"""Is what was painted like the real lesions of its type, and does it sit in the scan without a seam?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

from promptlesion.data.lesion_statistics import LesionMeasure, TypeStatistics
from promptlesion.data.spec import LesionType
from promptlesion.synthesis.blend import weight_at

Range = tuple[float, float]

_FEWEST_LESIONS = 5
_OUTER_SHARES = (0.01, 0.99)
_BULK_SHARES = (0.05, 0.95)
_MARGIN, _MARGIN_OF_FEW = 0.5, 10
_LEAST_MARGIN_HU = 10.0
_SEAM_FLOOR_HU, _SEAM_SHARE = 140.0, 0.55
_LEAST_WEIGHT = 0.4
"""Of an octant of the edge, some eight voxels: of less nothing is told."""


@dataclass(frozen=True)
class QualityLimits:
    """What a lesion of a type has to keep, in Hounsfield units; None where too little is known to ask for it."""

    mean_hu: Range
    std_hu: Range | None
    contrast_hu: Range | None


def limits_of(lesion_type: LesionType, statistics: TypeStatistics | None) -> QualityLimits:
    """Return what the lesions of a type have to keep: what its real ones are like, with a margin.

    Each range reaches from the first to the 99th percentile of the training lesions and beyond by half of what lies
    between their 5th and 95th, by more where few lesions tell, by 10 HU at least. The mean keeps to `hu` of
    `lesions.toml` as well. Of fewer than five training lesions nothing is derived; then it keeps to that alone, and so
    does a type of which something is asked that training lesions may not be like.
    """
    if lesion_type.attributes or statistics is None or len(statistics.mean_hu) < _FEWEST_LESIONS:
        return QualityLimits(lesion_type.hu, None, None)
    least_std, most_std = _widened(statistics.std_hu)
    least_mean, most_mean = _widened(statistics.mean_hu)
    low, high = lesion_type.hu
    return QualityLimits(
        mean_hu=(max(least_mean, low), min(most_mean, high)),
        std_hu=(max(least_std, 0.0), most_std),
        contrast_hu=_widened(statistics.contrast_hu),
    )


def reasons_against(measure: LesionMeasure, seam: float, limits: QualityLimits) -> list[str]:
    """Return why a lesion does not pass, in words; nothing where it does."""
    seam_limit = _SEAM_FLOOR_HU + _SEAM_SHARE * abs(measure.contrast_hu)
    judged: list[tuple[str, float, Range | None]] = [
        ("mean", measure.mean_hu, limits.mean_hu),
        ("spread", measure.std_hu, limits.std_hu),
        ("contrast", measure.contrast_hu, limits.contrast_hu),
        ("seam", seam, (0.0, seam_limit)),
    ]
    return [
        f"{name} {value:.0f} HU, expected {within[0]:.0f} to {within[1]:.0f}"
        for name, value, within in judged
        if within is not None and not within[0] <= value <= within[1]
    ]


def seam_hu(
    before: Shaped[np.ndarray, "x y z"],
    after: Shaped[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: tuple[float, float, float],
    edge_mm: float,
) -> float:
    """Return how far what was painted beside a lesion is from the scan: a halo on one side, or a lesion too large.

    The change over the outer half of the edge by the edge's weight there, taken in each of the eight octants around the
    lesion, where noise and blurred borders cancel out; the largest of them. The limit is 140 HU and 0.55 of the
    lesion's contrast, whose bloom reaches there rightly.
    """
    distance_mm = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    is_outer = (distance_mm >= edge_mm / 2) & (distance_mm < edge_mm)
    change = after[is_outer].astype(np.float64) - before[is_outer]
    octant = (np.argwhere(is_outer) > np.argwhere(mask).mean(axis=0)) @ (1, 2, 4)
    weight = np.bincount(octant, weights=weight_at(distance_mm[is_outer], edge_mm=edge_mm), minlength=8)
    is_full = weight >= _LEAST_WEIGHT
    if not is_full.any():
        return 0.0
    painted = np.bincount(octant, weights=change, minlength=8)[is_full] / weight[is_full]
    return float(np.abs(painted).max())


def mean_hu_inside(hu: Shaped[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> float:
    """Return the mean HU of the masked voxels."""
    return float(hu[mask].mean(dtype=np.float64))


def _widened(values: Sequence[float]) -> Range:
    low, high = np.quantile(values, _OUTER_SHARES).tolist()
    bulk_low, bulk_high = np.quantile(values, _BULK_SHARES).tolist()
    margin = max(_MARGIN * (1 + _MARGIN_OF_FEW / len(values)) * (bulk_high - bulk_low), _LEAST_MARGIN_HU)
    return low - margin, high + margin
