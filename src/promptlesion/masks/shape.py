"""Lesion shapes around the origin, in millimetres: turned, stretched and smoothly deformed.

A shape is a scalar field, below 1 inside and above it outside, that grows outwards. Masks are its level sets, so that
a shape whose host cuts off a part can be grown until the volume is what was asked for.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

_NUM_WAVES = 6
_AXIS_RATIO = (0.75, 1.35)


@runtime_checkable
class Shape(Protocol):
    """A closed surface around the origin."""

    def radius_ratio(
        self, offset_mm: Float[np.ndarray, "*shape 3"], *, radius_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Return below 1 inside, 1 on the surface, above 1 outside, growing outwards.

        Args:
            offset_mm: from the shape's origin, which lies inside.
            radius_mm: of the sphere of the shape's volume.
        """
        ...


@dataclass(frozen=True)
class Deformation:
    """Turns and perhaps mirrors a shape, stretches it along three axes, and lets its surface wave."""

    rotation: Float[np.ndarray, "3 3"]
    axis_ratios: Float[np.ndarray, "3"]
    wave_vectors: Float[np.ndarray, "wave 3"]
    wave_phases: Float[np.ndarray, " wave"]
    amplitude: float
    """Root mean square of the surface's deviation, as a share of its distance from the origin."""

    def undone(self, offset_mm: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
        """Return where a point of the deformed shape lies in the plain one."""
        local = offset_mm @ self.rotation / self.axis_ratios
        direction = local / np.maximum(np.linalg.norm(local, axis=-1), 1e-6)[..., None]
        waves = np.cos(direction @ self.wave_vectors.T + self.wave_phases).mean(axis=-1)
        stretch = (1 + self.amplitude * np.sqrt(2 * _NUM_WAVES) * waves).clip(0.3)
        return np.asarray(local / stretch[..., None])


def draw_deformation(
    generator: np.random.Generator, *, amplitude: float, axis_ratio: tuple[float, float], is_mirrored: bool = False
) -> Deformation:
    """Draw orientation, axis ratios of product 1, and surface waves.

    `axis_ratio` is the least and the most an axis is stretched, before all are scaled to keep the volume.
    """
    low, high = np.log(axis_ratio)
    ratios = np.exp(generator.uniform(low, high, size=3))
    rotation = Rotation.random(rng=generator).as_matrix()
    return Deformation(
        rotation=-rotation if is_mirrored else rotation,
        axis_ratios=ratios / np.prod(ratios) ** (1 / 3),
        wave_vectors=generator.normal(scale=2.0, size=(_NUM_WAVES, 3)),
        wave_phases=generator.uniform(0, 2 * np.pi, size=_NUM_WAVES),
        amplitude=amplitude,
    )


@dataclass(frozen=True)
class DeformedEllipsoid:
    """A sphere, deformed."""

    deformation: Deformation

    def radius_ratio(
        self, offset_mm: Float[np.ndarray, "*shape 3"], *, radius_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Return the distance from the centre as a share of the surface's distance in that direction; inside is < 1."""
        return np.asarray(np.linalg.norm(self.deformation.undone(offset_mm), axis=-1) / radius_mm)


def draw_ellipsoid(generator: np.random.Generator, *, deformation: float) -> DeformedEllipsoid:
    """Draw orientation, axis ratios and surface waves of an ellipsoid; see `Deformation.amplitude`."""
    return DeformedEllipsoid(draw_deformation(generator, amplitude=deformation, axis_ratio=_AXIS_RATIO))
