"""Analytic vessels as label maps: straight, bent and forked tubes of lumen and wall."""

import numpy as np

from promptlesion.data.volume import Volume

LUMEN, WALL = 1, 2
SPACING = (0.5, 0.6, 0.7)


def grid_mm(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = SPACING) -> np.ndarray:
    """Positions of all voxels from the middle of the grid."""
    axes = [(np.arange(n) - n // 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def tube_labels(radius: np.ndarray, *, lumen_mm: float, wall_mm: float) -> np.ndarray:
    """Lumen and wall by distance from the axis."""
    labels = np.zeros(radius.shape, dtype=np.uint8)
    labels[radius < lumen_mm + wall_mm] = WALL
    labels[radius < lumen_mm] = LUMEN
    return labels


def volume(labels: np.ndarray, spacing_mm: tuple[float, float, float] = SPACING) -> Volume:
    return Volume(labels, np.diag([*spacing_mm, 1.0]))


def wall_voxel_near(labels: np.ndarray, at_mm: np.ndarray, positions: np.ndarray) -> tuple[int, int, int]:
    distance = np.where(labels == WALL, np.linalg.norm(positions - at_mm, axis=-1), np.inf)
    x, y, z = np.unravel_index(int(distance.argmin()), labels.shape)
    return int(x), int(y), int(z)


def bent(shape: tuple[int, int, int], bend_mm: float, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
    """Distance from the axis of a torus, arc length along it, and positions."""
    positions = grid_mm(shape, spacing_mm)
    in_plane = np.hypot(positions[..., 0] + bend_mm, positions[..., 1])
    radius = np.hypot(in_plane - bend_mm, positions[..., 2])
    arc = bend_mm * np.arctan2(positions[..., 1], positions[..., 0] + bend_mm)
    return radius, arc, positions


def forked(branch_mm: float = 1.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tube of 2 mm along z whose side branch leaves it at 70 degrees; labels, distance from either axis."""
    positions = grid_mm((80, 50, 76))
    main = np.hypot(positions[..., 0], positions[..., 1])
    heading = np.array([np.sin(np.radians(70)), 0.0, np.cos(np.radians(70))])
    along = positions @ heading
    side = np.where(along > 0, np.linalg.norm(positions - along[..., None] * heading, axis=-1), np.inf)
    labels = np.zeros(main.shape, dtype=np.uint8)
    labels[(main < 3.2) | (side < branch_mm + 1.2)] = WALL
    labels[(main < 2.0) | (side < branch_mm)] = LUMEN
    return labels, main, side
