"""Smooth shapes on a voxel grid, in millimetres: the brush strokes that every phantom is painted with.

Whatever varies slowly (organ surfaces, textures) is computed on a coarse lattice of cubic B-spline control
points and carried to the voxels by three small matrix products: about ten milliseconds for a million voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

Axes = tuple[Float32[np.ndarray, "x 1 1"], Float32[np.ndarray, "1 y 1"], Float32[np.ndarray, "1 1 z"]]
Points = tuple[Float32[np.ndarray, "*s"], Float32[np.ndarray, "*s"], Float32[np.ndarray, "*s"]]

_SMALLEST_PIECE_VOXELS = 20
_WHITE_NOISE_STD = 0.479**1.5
"""Standard deviation of a 3-D cubic B-spline whose control points are independent with unit variance."""


@dataclass(frozen=True)
class Grid:
    """A voxel grid whose coordinates are millimetres from its centre."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @cached_property
    def axes_mm(self) -> Axes:
        """Voxel centre coordinates along each axis, shaped to broadcast against each other."""
        first, second, third = (
            ((np.arange(size) - (size - 1) / 2) * spacing).astype(np.float32)
            for size, spacing in zip(self.shape, self.spacing_mm, strict=True)
        )
        return first[:, None, None], second[None, :, None], third[None, None, :]

    @cached_property
    def half_extent_mm(self) -> Float[np.ndarray, "3"]:
        """Distance from the centre to the outer faces."""
        return np.asarray(np.array(self.shape) * np.array(self.spacing_mm) / 2)

    @cached_property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """Voxel index to millimetres, RAS+, in numbers that a NIfTI file can hold exactly."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = [-(size - 1) / 2 * step for size, step in zip(self.shape, self.spacing_mm, strict=True)]
        return np.asarray(affine.astype(np.float32), dtype=np.float64)


@dataclass(frozen=True)
class Lattice:
    """Cubic B-spline control points, `step_mm` apart, that reach two points beyond a grid on every side."""

    grid: Grid
    step_mm: float

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Number of control points along each axis."""
        sizes = [int(np.ceil(2 * half / self.step_mm)) + 5 for half in self.grid.half_extent_mm]
        return sizes[0], sizes[1], sizes[2]

    @cached_property
    def origin_mm(self) -> Float[np.ndarray, "3"]:
        """Position of the first control point."""
        return -(np.array(self.shape) - 1) / 2 * self.step_mm

    @cached_property
    def axes_mm(self) -> Axes:
        """Control point coordinates along each axis, shaped to broadcast against each other."""
        first, second, third = (
            (start + np.arange(size) * self.step_mm).astype(np.float32)
            for start, size in zip(self.origin_mm, self.shape, strict=True)
        )
        return first[:, None, None], second[None, :, None], third[None, None, :]

    @cached_property
    def _bases(self) -> list[Float32[np.ndarray, "_ _"]]:
        return [
            _spline_basis((axis.ravel() - start) / self.step_mm, size)
            for axis, start, size in zip(self.grid.axes_mm, self.origin_mm, self.shape, strict=True)
        ]

    def to_grid(self, control_points: Float32[np.ndarray, "_ _ _"]) -> Float32[np.ndarray, "x y z"]:
        """The spline at every voxel centre."""
        first, second, third = self._bases
        planes = np.tensordot(first, control_points, axes=(1, 0))
        rows = np.matmul(second, planes)
        return np.asarray(np.matmul(rows, third.T), dtype=np.float32)


def _spline_basis(positions: Float[np.ndarray, " n"], size: int) -> Float32[np.ndarray, "n m"]:
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_noise(generator: np.random.Generator, grid: Grid, scale_mm: float) -> Float32[np.ndarray, "x y z"]:
    """Random texture of zero mean and unit variance whose blobs are about `scale_mm` wide."""
    lattice = Lattice(grid, scale_mm)
    return lattice.to_grid(lattice_noise(generator, lattice.shape)) / np.float32(_WHITE_NOISE_STD)


def lattice_noise(generator: np.random.Generator, shape: tuple[int, int, int]) -> Float32[np.ndarray, "_ _ _"]:
    """Independent standard normal control points."""
    return generator.standard_normal(shape, dtype=np.float32)


def displaced(generator: np.random.Generator, lattice: Lattice, *, scale_mm: float, amplitude_mm: float) -> Points:
    """The lattice's coordinates pushed about by a smooth random field: ellipsoids then look grown."""
    coarse = Grid(lattice.shape, (lattice.step_mm, lattice.step_mm, lattice.step_mm))
    first, second, third = (
        axis + np.float32(amplitude_mm) * smooth_noise(generator, coarse, scale_mm) for axis in lattice.axes_mm
    )
    return first, second, third


def rotation(axis_direction: Sequence[float]) -> Float[np.ndarray, "3 3"]:
    """An orthonormal frame (rows) whose first row is the given direction."""
    first = np.array(axis_direction, dtype=np.float64)
    first /= np.linalg.norm(first)
    helper = np.array([0.0, 0.0, 1.0]) if abs(first[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    second = np.cross(helper, first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def ellipsoid_distance(
    points: Sequence[np.ndarray],
    center_mm: Sequence[float],
    radii_mm: Sequence[float],
    direction: Sequence[float] = (1.0, 0.0, 0.0),
) -> Float32[np.ndarray, "..."]:
    """Signed distance in millimetres (negative inside; first order, exact on the surface) to an ellipsoid.

    `direction` is where its first radius points.
    """
    frame = rotation(direction).astype(np.float32)
    shifted = [axis - np.float32(middle) for axis, middle in zip(points, center_mm, strict=True)]
    scaled_square: np.ndarray = np.zeros(1, np.float32)
    gradient_square: np.ndarray = np.zeros(1, np.float32)
    for row, radius in zip(frame, radii_mm, strict=True):
        local = (row[0] * shifted[0] + row[1] * shifted[1] + row[2] * shifted[2]) / np.float32(radius)
        square = local * local
        scaled_square = scaled_square + square
        gradient_square = gradient_square + square / np.float32(radius) ** 2
    level = np.sqrt(scaled_square)
    return np.asarray(level * (level - 1) / np.sqrt(gradient_square + np.float32(1e-8)), dtype=np.float32)


def capsule_distance(
    points: Sequence[np.ndarray], start_mm: Sequence[float], end_mm: Sequence[float], radius_mm: float
) -> Float32[np.ndarray, "..."]:
    """Signed distance in millimetres to a straight tube with round ends."""
    start, end = np.array(start_mm, np.float32), np.array(end_mm, np.float32)
    along = end - start
    shifted = [axis - middle for axis, middle in zip(points, start, strict=True)]
    share = sum(part * step for part, step in zip(shifted, along, strict=True)) / float(along @ along)
    share = np.clip(share, 0, 1)
    square = sum((part - share * step) ** 2 for part, step in zip(shifted, along, strict=True))
    return np.asarray(np.sqrt(square) - radius_mm, dtype=np.float32)


def smooth_union(distances: Sequence[np.ndarray], rounding_mm: float) -> Float32[np.ndarray, "..."]:
    """Signed distance to the union, its creases filled with fillets of about `rounding_mm`."""
    total = sum(np.exp(np.clip(-distance / rounding_mm, -60, 60)) for distance in distances)
    return np.asarray(-rounding_mm * np.log(total), dtype=np.float32)


def coverage(distance_mm: Float32[np.ndarray, "..."], voxel_mm: float) -> Float32[np.ndarray, "..."]:
    """Share of a voxel that lies inside a surface at the given signed distance: the partial volume effect."""
    return np.clip(np.float32(0.5) - distance_mm / np.float32(voxel_mm), 0, 1)


def paint(
    hu: Float32[np.ndarray, "*s"], value: float | Float32[np.ndarray, "*s"], share: Float32[np.ndarray, "*s"]
) -> None:
    """Lay a tissue over what is there, in place, each voxel to the given share."""
    hu += share * (value - hu)


def crumbs(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The few voxels that are cut off from a structure."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    return np.asarray((pieces > 0) & (sizes[pieces] < _SMALLEST_PIECE_VOXELS))
