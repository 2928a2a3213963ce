"""Part of a heart and what lies around it: chambers, epicardial fat, pericardium, lung, chest wall."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from promptlesion.data.phantom.geometry import (
    Grid,
    Lattice,
    Points,
    capsule_distance,
    coverage,
    displaced,
    ellipsoid_distance,
    paint,
    smooth_noise,
    smooth_union,
)

_LATTICE_STEP_MM = 2.0
_FAT_HU = -92.0
_MUSCLE_HU = 55.0
_LUNG_HU = -855.0
_PERICARDIUM_HU = 15.0


@dataclass(frozen=True)
class Heart:
    """The attenuation values without coronary arteries, and the surfaces that guide them.

    The distances, control points of `lattice`, are to muscle and great vessels, pericardium, and aorta.
    """

    hu: Float32[np.ndarray, "x y z"]
    lattice: Lattice
    body_distance_mm: Float32[np.ndarray, "_ _ _"]
    pericardium_distance_mm: Float32[np.ndarray, "_ _ _"]
    aorta_distance_mm: Float32[np.ndarray, "_ _ _"]


@dataclass(frozen=True)
class _Chambers:
    """Signed distances to outer surfaces, on the lattice."""

    left_ventricle: np.ndarray
    left_cavity: np.ndarray
    right_ventricle: np.ndarray
    left_atrium: np.ndarray
    right_atrium: np.ndarray
    aorta: np.ndarray
    pulmonary_artery: np.ndarray


def grow_heart(generator: np.random.Generator, grid: Grid, *, contrast_hu: float) -> Heart:
    """A heart of random size and position, its left side filled with contrast of the given attenuation."""
    lattice = Lattice(grid, _LATTICE_STEP_MM)
    points = displaced(generator, lattice, scale_mm=14.0, amplitude_mm=1.3)
    chambers = _chambers(generator, points)
    # what the epicardial fat lies on
    surfaces = [surface for name, surface in vars(chambers).items() if name != "left_cavity"]
    body = smooth_union(surfaces, 1.5)
    pericardium = smooth_union(surfaces, 7.0) - np.float32(generator.uniform(3.5, 6.5))
    hu = _surroundings(generator, grid, lattice, points, pericardium)
    _paint_pericardial_sac(generator, grid, hu, lattice.to_grid(pericardium))
    _paint_chambers(generator, grid, lattice, chambers, hu, contrast_hu)
    return Heart(hu, lattice, body, pericardium, chambers.aorta)


def _chambers(generator: np.random.Generator, points: Points) -> _Chambers:
    size = generator.uniform(0.92, 1.06)
    shift = generator.uniform(-3.0, 3.0, 3)

    def place(*position_mm: float) -> list[float]:
        jitter = generator.uniform(-1.5, 1.5, 3)
        return [float(v) for v in np.array(position_mm) * size + shift + jitter]

    def radii(*radii_mm: float) -> list[float]:
        return [float(radius * size * generator.uniform(0.93, 1.07)) for radius in radii_mm]

    apex = np.array([-0.72, 0.45, -0.5]) + generator.uniform(-0.12, 0.12, 3)
    ventricle_center, ventricle_radii = place(-9.0, -4.0, -9.0), radii(30.0, 20.0, 21.0)
    wall_mm = generator.uniform(7.0, 9.5)
    cavity_radii = [radius - wall_mm for radius in ventricle_radii]
    direction = tuple(float(v) for v in apex)
    root = place(9.0, 1.0, 4.0)
    return _Chambers(
        left_ventricle=ellipsoid_distance(points, ventricle_center, ventricle_radii, direction),
        left_cavity=ellipsoid_distance(points, ventricle_center, cavity_radii, direction),
        right_ventricle=ellipsoid_distance(points, place(11.0, 11.0, -11.0), radii(27.0, 13.0, 19.0), direction),
        left_atrium=ellipsoid_distance(points, place(9.0, -22.0, 9.0), radii(19.0, 11.0, 13.0)),
        right_atrium=ellipsoid_distance(points, place(33.0, -3.0, -2.0), radii(11.0, 15.0, 18.0)),
        aorta=capsule_distance(points, root, [root[0] + 4, root[1] + 2, root[2] + 60], radii(11.5)[0]),
        pulmonary_artery=capsule_distance(points, place(4.0, 15.0, 0.0), place(-9.0, 8.0, 40.0), radii(8.5)[0]),
    )


def _paint_chambers(
    generator: np.random.Generator,
    grid: Grid,
    lattice: Lattice,
    chambers: _Chambers,
    hu: np.ndarray,
    contrast_hu: float,
) -> None:
    voxel_mm = grid.spacing_mm[0]
    coarse, fine = smooth_noise(generator, grid, 10.0), smooth_noise(generator, grid, 3.0)
    muscle = generator.uniform(95, 125) + 8 * coarse + 4 * fine
    flow = 12 * smooth_noise(generator, grid, 16.0)
    right_hu = contrast_hu * generator.uniform(0.4, 0.9)

    def chamber(distance: np.ndarray, wall_mm: float, blood_hu: float, roughness_mm: float) -> None:
        outer = lattice.to_grid(distance)
        paint(hu, muscle, coverage(outer, voxel_mm))
        trabeculae = roughness_mm * fine if roughness_mm else 0.0
        paint(hu, blood_hu + flow, coverage(outer + wall_mm + trabeculae, voxel_mm))

    chamber(chambers.right_atrium, 2.0, right_hu, 0.4)
    chamber(chambers.right_ventricle, 3.2, right_hu, 0.8)
    chamber(chambers.pulmonary_artery, 1.4, right_hu, 0.0)
    chamber(chambers.left_atrium, 1.8, contrast_hu, 0.2)
    paint(hu, muscle, coverage(lattice.to_grid(chambers.left_ventricle), voxel_mm))
    cavity = lattice.to_grid(chambers.left_cavity) + 0.9 * fine
    paint(hu, contrast_hu + flow, coverage(cavity, voxel_mm))
    chamber(chambers.aorta, 1.4, contrast_hu, 0.0)


def _paint_pericardial_sac(generator: np.random.Generator, grid: Grid, hu: np.ndarray, distance: np.ndarray) -> None:
    voxel_mm = grid.spacing_mm[0]
    paint(hu, fat(generator, grid), coverage(distance, voxel_mm))
    thickness = 0.55 + 0.25 * smooth_noise(generator, grid, 9.0)
    paint(hu, _PERICARDIUM_HU, coverage(np.abs(distance) - thickness, voxel_mm))


def fat(generator: np.random.Generator, grid: Grid) -> Float32[np.ndarray, "x y z"]:
    """Fat with slow variation, fine grain, and strands (two random sheets cross in a random curve)."""
    texture = _FAT_HU + 6 * smooth_noise(generator, grid, 7.0) + 7 * smooth_noise(generator, grid, 1.8)
    strands = _threads(generator, grid, scale_mm=7.0, width=0.09)
    return np.asarray(texture + np.float32(75) * strands)


def _threads(
    generator: np.random.Generator, grid: Grid, *, scale_mm: float, width: float
) -> Float32[np.ndarray, "x y z"]:
    first, second = smooth_noise(generator, grid, scale_mm), smooth_noise(generator, grid, scale_mm)
    return np.asarray(np.clip(1.5 - np.hypot(first, second) / np.float32(width), 0, 1))


def _surroundings(
    generator: np.random.Generator, grid: Grid, lattice: Lattice, points: Points, pericardium: np.ndarray
) -> Float32[np.ndarray, "x y z"]:
    voxel_mm = grid.spacing_mm[0]
    hu = fat(generator, grid)
    cavity_center = [float(v) for v in (generator.uniform(-8, 0), -78 + generator.uniform(-3, 3), 0.0)]
    cavity = ellipsoid_distance(points, cavity_center, [118.0, 109.0, 190.0])
    cushion = generator.uniform(1.0, 2.5) + 1.5 * np.maximum(0, points[1] / 18) + np.maximum(0, points[0] / 8)
    lung = lattice.to_grid(np.maximum(cavity + 3.0, cushion.astype(np.float32) - pericardium))
    vessels = _threads(generator, grid, scale_mm=9.0, width=0.16)
    air = _LUNG_HU + 18 * smooth_noise(generator, grid, 4.0) + np.float32(830) * vessels
    paint(hu, air, coverage(lung, voxel_mm))
    depth = lattice.to_grid(cavity)
    muscle = _MUSCLE_HU + 8 * smooth_noise(generator, grid, 2.5)
    streaks = coverage(0.9 - np.abs(smooth_noise(generator, grid, 6.0)) * 2.2, 1.0)
    paint(hu, muscle, coverage(np.maximum(-1.5 - depth, depth - 13), voxel_mm) * streaks)
    _paint_bones(generator, grid, lattice, points, hu)
    return hu


def _paint_bones(generator: np.random.Generator, grid: Grid, lattice: Lattice, points: Points, hu: np.ndarray) -> None:
    voxel_mm = grid.spacing_mm[0]
    marrow = 150 + 50 * smooth_noise(generator, grid, 2.0)
    height = generator.uniform(-12, 12)
    sternum = ellipsoid_distance(points, [31.0 + generator.uniform(-3, 4), 37.0, 0.0], [15.0, 6.5, 70.0])
    bones = [sternum]
    for level in (-26.0, 4.0, 34.0):
        start, end = [-2.0, 37.5, level + height], [-60.0, 22.0, level + height - 16]
        bones.append(capsule_distance(points, start, end, 4.2))
    distance = lattice.to_grid(smooth_union(bones, 1.0))
    shell = generator.uniform(550, 800)
    paint(hu, shell, coverage(distance, voxel_mm))
    paint(hu, marrow, coverage(distance + 1.3, voxel_mm))
