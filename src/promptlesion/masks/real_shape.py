"""Shapes drawn from a bank of real ones: turned, mirrored, scaled and a little deformed."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from promptlesion.masks.shape import Deformation, draw_deformation
from promptlesion.masks.shape_bank import ShapeBank

_AXIS_RATIO = (0.87, 1.15)
_DEFORMATION_SHARE = 0.4
_NEIGHBOURS = 8
_SMOOTHING_VOXELS = 0.5
_MARGIN_VOXELS = 3
_LIKE_SIZE = 1.25
"""A lesion pasted with its voxels is scaled by no more, unless there is none so near in size."""


@dataclass(frozen=True)
class RealShape:
    """A bank's shape, deformed: the distance to its surface, around its deepest point."""

    distance_mm: Float[np.ndarray, "x y z"]
    """To the surface, negative inside."""
    origin_voxel: Float[np.ndarray, "3"]
    spacing_mm: tuple[float, float, float]
    own_diameter_mm: float
    deformation: Deformation
    hu: Float32[np.ndarray, "x y z"] | None = None
    """On the grid of `distance_mm`, for a lesion cut with its voxels; outside it that of its nearest voxel."""

    def radius_ratio(
        self, offset_mm: Float[np.ndarray, "*shape 3"], *, radius_mm: float
    ) -> Float[np.ndarray, "*shape"]:
        """Return 1 plus the distance to the surface as a share of the radius; see `Shape.radius_ratio`."""
        scale = 2 * radius_mm / self.own_diameter_mm
        index = self._index(offset_mm, scale)
        inside = index.clip(0, np.array(self.distance_mm.shape) - 1)
        beyond_mm = np.linalg.norm((index - inside) * np.array(self.spacing_mm), axis=-1)
        distance = ndimage.map_coordinates(self.distance_mm, np.moveaxis(inside, -1, 0), order=1) + beyond_mm
        return np.asarray(1 + distance * scale / radius_mm)

    def hu_at(self, offset_mm: Float[np.ndarray, "n 3"], *, radius_mm: float) -> Float32[np.ndarray, " n"]:
        """Return the lesion's own HU where its deformed shape has been brought; cubic splines keep its noise.

        Raises:
            ValueError: the shape was not cut with its voxels.
        """
        if self.hu is None:
            raise ValueError("expected a shape cut with its voxels; found a mask alone")
        index = self._index(offset_mm, 2 * radius_mm / self.own_diameter_mm)
        found = ndimage.map_coordinates(self.hu, np.moveaxis(index, -1, 0), order=3, mode="nearest")
        # splines overshoot at edges
        return np.asarray(found.clip(self.hu.min(), self.hu.max()))

    def _index(self, offset_mm: Float[np.ndarray, "*shape 3"], scale: float) -> Float[np.ndarray, "*shape 3"]:
        return np.asarray(self.deformation.undone(offset_mm) / scale / np.array(self.spacing_mm) + self.origin_voxel)


def draw_real_shape(
    bank: ShapeBank, *, diameter_mm: float, deformation: float, generator: np.random.Generator
) -> tuple[RealShape, str]:
    """Draw one of the shapes nearest in size, turned, perhaps mirrored, a little stretched and deformed.

    Small lesions are rounder than large ones: scaled from afar they would not look right. Among the quarter of the
    bank nearest in size, at least eight, each is as likely as another. A lesion with its voxels is scaled by a quarter
    at most where there is one so near in size: its texture must not come out coarser or finer than scans have it.

    Returns:
        The shape, and `real: CASE`.
    """
    distance = [abs(math.log(shape.diameter_mm / diameter_mm)) for shape in bank.shapes]
    num_near = min(len(distance), max(_NEIGHBOURS, len(distance) // 4))
    if bank.has_voxels:
        num_near = max(1, sum(each <= math.log(_LIKE_SIZE) for each in distance))
    nearest = np.argsort(distance, kind="stable")[:num_near]
    chosen = bank.shapes[int(nearest[int(generator.integers(num_near))])]
    drawn = draw_deformation(
        generator,
        amplitude=_DEFORMATION_SHARE * deformation,
        axis_ratio=_AXIS_RATIO,
        is_mirrored=bool(generator.random() < 0.5),
    )
    mask = np.pad(chosen.mask, _MARGIN_VOXELS)
    outside_mm, inside_mm = (ndimage.distance_transform_edt(part, sampling=chosen.spacing_mm) for part in (~mask, mask))
    deepest = np.array(np.unravel_index(int(inside_mm.argmax()), mask.shape), dtype=np.float64)
    distance_mm = ndimage.gaussian_filter(outside_mm - inside_mm, _SMOOTHING_VOXELS)
    hu = None
    if chosen.hu is not None:
        nearest_voxel = ndimage.distance_transform_edt(
            ~mask, sampling=chosen.spacing_mm, return_distances=False, return_indices=True
        )
        hu = np.pad(chosen.hu.astype(np.float32), _MARGIN_VOXELS)[tuple(nearest_voxel)]
    shape = RealShape(distance_mm, deepest, chosen.spacing_mm, chosen.diameter_mm, drawn, hu)
    return shape, f"real: {chosen.case}"
