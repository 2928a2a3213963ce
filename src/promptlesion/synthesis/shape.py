"""Lesion shapes: ellipsoids in millimetres with a smoothly deformed surface."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

_NUM_WAVES = 6
_AXIS_RATIO = (0.75, 1.35)


@dataclass(frozen=True)
class DeformedEllipsoid:
    """A closed surface around the origin; `radius_ratio` says where a point lies relative to it."""

    rotation: Float[np.ndarray, "3 3"]
    axis_ratios: Float[np.ndarray, "3"]
    wave_vectors: Float[np.ndarray, "wave 3"]
    wave_phases: Float[np.ndarray, " wave"]
    deformation: float

    def radius_ratio(
        self, offset_mm: Float[np.ndarray, "*shape 3"], *, radius_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Return the distance from the centre as a share of the surface's distance in that direction; inside is < 1."""
        local = offset_mm @ self.rotation / self.axis_ratios
        distance = np.linalg.norm(local, axis=-1)
        direction = local / np.maximum(distance, 1e-6)[..., None]
        waves = np.cos(direction @ self.wave_vectors.T + self.wave_phases).mean(axis=-1)
        ratio: np.ndarray = distance / (radius_mm * (1 + self.deformation * np.sqrt(2 * _NUM_WAVES) * waves).clip(0.3))
        return ratio


def draw_ellipsoid(generator: np.random.Generator, *, deformation: float) -> DeformedEllipsoid:
    """Draw orientation, axis ratios and surface waves.

    Args:
        generator: of every draw.
        deformation: root mean square of the surface's deviation, as a share of the radius.
    """
    low, high = np.log(_AXIS_RATIO)
    ratios = np.exp(generator.uniform(low, high, size=3))
    return DeformedEllipsoid(
        rotation=Rotation.random(rng=generator).as_matrix(),
        axis_ratios=ratios / np.prod(ratios) ** (1 / 3),
        wave_vectors=generator.normal(scale=2.0, size=(_NUM_WAVES, 3)),
        wave_phases=generator.uniform(0, 2 * np.pi, size=_NUM_WAVES),
        deformation=deformation,
    )
