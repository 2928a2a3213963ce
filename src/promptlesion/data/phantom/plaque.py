"""Plaque as crescents in a vessel's wall, in the wall's own coordinates: arc length, angle, and depth."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

PlaqueKind = Literal["calcified", "non_calcified"]
KINDS: tuple[PlaqueKind, ...] = ("calcified", "non_calcified")
_RANGES = {
    "calcified": ((3.2, 7.0), (95, 170), (1.5, 2.3), (0.1, 0.35), (0.0, 0.15), (700, 1050)),
    "non_calcified": ((5.0, 10.0), (130, 230), (1.7, 2.6), (0.25, 0.4), (0.1, 0.3), (48, 92)),
}
"""Of length in mm, opening in degrees, thickness and gap in mm, stenosis as a share of the lumen's radius, mean HU."""
_CORE_HU = {"calcified": (100, 350), "non_calcified": (-45, -10)}


@dataclass(frozen=True)
class Plaque:
    """One crescent: where on the vessel it sits, how far it reaches, and what it is made of."""

    kind: PlaqueKind
    center_arc_mm: float
    length_mm: float
    center_angle: float
    opening_angle: float
    thickness_mm: float
    gap_to_lumen_mm: float
    stenosis_mm: float
    mean_hu: float
    core_hu: float
    phases: tuple[float, float, float]

    def profile(self, arc_mm: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Share of the full thickness: 1 in the middle, 0 at the ragged edge and beyond."""
        turned = np.angle(np.exp(1j * (angle - self.center_angle)))
        along = (arc_mm - self.center_arc_mm) / (self.length_mm / 2)
        around = turned / (self.opening_angle / 2)
        first, second, third = self.phases
        ragged = 0.16 * np.sin(2.1 * arc_mm + first + 2 * angle) + 0.12 * np.sin(4 * angle + second - 1.3 * arc_mm)
        ragged = ragged + 0.1 * np.sin(3.7 * arc_mm + third)
        square = along**2 + around**2
        return np.asarray(np.sqrt(np.clip(1 - square * (1 + ragged), 0, 1)) * (square < 2))


def draw_plaque(generator: np.random.Generator, kind: PlaqueKind, *, arc_mm: float, lumen_radius_mm: float) -> Plaque:
    """A plaque of random size and composition for a place where the lumen has the given radius."""
    uniform = generator.uniform
    angle = float(uniform(-np.pi, np.pi))
    phases = (float(uniform(0, 6.28)), float(uniform(0, 6.28)), float(uniform(0, 6.28)))
    length_mm, opening, thickness_mm, gap_mm, stenosis, mean_hu = (float(uniform(*span)) for span in _RANGES[kind])
    has_core = kind == "calcified" or uniform() < 0.4
    return Plaque(
        kind,
        center_arc_mm=arc_mm,
        length_mm=length_mm,
        center_angle=angle,
        opening_angle=float(np.deg2rad(opening)),
        thickness_mm=thickness_mm,
        gap_to_lumen_mm=gap_mm,
        stenosis_mm=stenosis * lumen_radius_mm,
        mean_hu=mean_hu,
        core_hu=float(uniform(*_CORE_HU[kind])) if has_core else 0.0,
        phases=phases,
    )
