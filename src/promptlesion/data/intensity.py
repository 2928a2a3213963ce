"""Hounsfield units outside the networks, [-1, 1] inside: the one place where the two meet; how far HU may be off."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

RELATIVE_TOLERANCE = 0.25
ABSOLUTE_TOLERANCE_HU = 30.0
Intensities = TypeVar("Intensities")
"""A NumPy array, a torch tensor or a number: what goes in comes out."""


@dataclass(frozen=True)
class HUWindow:
    """A range of Hounsfield units that maps linearly to [-1, 1]; what lies outside it is clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an empty, reversed or endless window."""
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"window_hu: expected two finite HU with low < high, found [{self.low}, {self.high}]")

    @property
    def width_hu(self) -> float:
        """Hounsfield units from the window's low to its high end."""
        return self.high - self.low

    def normalize(self, hu: Intensities) -> Intensities:
        """Map HU to [-1, 1], clipped; integers become float32."""
        values = _as_floats(hu)
        return (((values - self.low) * (2.0 / self.width_hu)) - 1.0).clip(-1.0, 1.0)  # type: ignore[no-any-return]

    def to_hu(self, normalized: Intensities) -> Intensities:
        """Map [-1, 1] back to HU; values beyond it go on linearly, since only `normalize` clips."""
        values = _as_floats(normalized)
        return (values + 1.0) * (self.width_hu / 2.0) + self.low  # type: ignore[no-any-return]


def intensity_tolerance_hu(
    real_mean_hu: float, *, relative: float = RELATIVE_TOLERANCE, absolute_hu: float = ABSOLUTE_TOLERANCE_HU
) -> float:
    """How far a type's mean may be off: a share of the real lesions' mean or some HU, whichever is more."""
    return max(relative * abs(real_mean_hu), absolute_hu)


def _as_floats(values: object) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
        return values.astype(np.float32)
    if isinstance(values, int | float):
        return np.float64(values)
    return values  # torch turns integers into its default float type by itself
