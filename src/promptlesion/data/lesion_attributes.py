"""What a lesion is like in the figures that a prompt can ask for: how bright, how spread, how sharp, how mottled."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from promptlesion.data.attribute_names import ATTRIBUTES
from promptlesion.data.lesion_appearance import appearance

NAMES = tuple(ATTRIBUTES)
HU_LEVELS = ("mean_hu", "p10_hu", "p50_hu", "p90_hu", "outer_hu")
"""Those that a brighter lesion has higher by as much."""
_SHARES = {"p10_hu": 10, "p50_hu": 50, "p90_hu": 90}

AttributeRow = Float64[np.ndarray, " attribute"]
"""A value for every one of `ATTRIBUTES`, NaN where it is unknown or not asked for."""


def measure_attributes(
    hu: Shaped[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    *,
    contrast_hu: float,
) -> AttributeRow:
    """Measure a lesion in a box that leaves 5 mm around it, or less at the scan's edge; see `appearance`.

    Its contrast to the host takes the host's label, and comes from `measure_lesion`.
    """
    seen = appearance(hu, mask, spacing_mm)
    percentiles = np.percentile(hu[mask], list(_SHARES.values()))
    known = {**seen, **dict(zip(_SHARES, percentiles.tolist(), strict=True)), "contrast_hu": contrast_hu}
    return np.array([known[name] for name in NAMES])


def as_mapping(row: AttributeRow) -> dict[str, float]:
    """Return the known attributes by name, in hundredths."""
    return {name: round(float(value), 2) for name, value in zip(NAMES, row, strict=True) if np.isfinite(value)}


def as_row(values: Mapping[str, float]) -> AttributeRow:
    """Return the attributes in the prompt's order, NaN where there is none."""
    return np.array([values.get(name, np.nan) for name in NAMES])


def scale_of(rows: Float64[np.ndarray, "lesion attribute"]) -> tuple[AttributeRow, AttributeRow]:
    """Return mean and standard deviation of each attribute over lesions of one type.

    Where fewer than two lesions tell, or all are alike, the deviation is a tenth of the mean, 1 at least.
    """
    mean, std = np.zeros(len(NAMES)), np.ones(len(NAMES))
    for index, column in enumerate(rows.T):
        known = column[np.isfinite(column)]
        if len(known):
            mean[index] = known.mean()
            std[index] = known.std() if np.ptp(known) > 0 else max(1.0, abs(known.mean()) / 10)
    return mean, std


def stacked(values: Sequence[AttributeRow]) -> Float64[np.ndarray, "lesion attribute"]:
    """Return rows as one array, which has its columns even without a lesion."""
    return np.array(values, dtype=np.float64).reshape(-1, len(NAMES))
