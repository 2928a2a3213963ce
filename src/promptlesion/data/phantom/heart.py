"""Part of a heart and what lies around it: chambers, epicardial fat, pericardium, lung, chest wall."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from promptlesion.data.phantom.canvas import Canvas
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


class _Chambers(NamedTuple):
    """Signed distances to the surfaces that the epicardial fat lies on, on the lattice."""

    left_ventricle: np.ndarray
    right_ventricle: np.ndarray
    left_atrium: np.ndarray
    right_atrium: np.ndarray
    aorta: np.ndarray
    pulmonary_artery: np.ndarray


def grow_heart(generator: np.random.Generator, grid: Grid, *, contrast_hu: float) -> Heart:
    """A heart of random size and position, its left side filled with contrast of the given attenuation."""
    lattice = Lattice(grid, _LATTICE_STEP_MM)
    points = displaced(generator, lattice, scale_mm=14.0, amplitude_mm=1.3)
    chambers, left_cavity = _chambers(generator, points)
    body = smooth_union(chambers, 1.5)
    pericardium = smooth_union(chambers, 7.0) - np.float32(generator.uniform(3.5, 6.5))
    fat = _fat(generator, grid)
    canvas = Canvas(grid, lattice, points, generator, fat.copy(), fat)
    _lay_surroundings(canvas, pericardium)
    sac = canvas.lay(pericardium, _fat(generator, grid))
    canvas.lay(np.abs(sac) - (0.55 + 0.25 * canvas.noise(9.0)), _PERICARDIUM_HU)
    _lay_chambers(canvas, chambers, left_cavity, contrast_hu)
    return Heart(canvas.hu, lattice, body, pericardium, chambers.aorta)


def _chambers(generator: np.random.Generator, points: Points) -> tuple[_Chambers, np.ndarray]:
    """The outer surfaces, and the cavity of the left ventricle."""
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
    direction = tuple(float(v) for v in apex)
    cavity = ellipsoid_distance(points, ventricle_center, [radius - wall_mm for radius in ventricle_radii], direction)
    root = place(9.0, 1.0, 4.0)
    chambers = _Chambers(
        left_ventricle=ellipsoid_distance(points, ventricle_center, ventricle_radii, direction),
        right_ventricle=ellipsoid_distance(points, place(11.0, 11.0, -11.0), radii(27.0, 13.0, 19.0), direction),
        left_atrium=ellipsoid_distance(points, place(9.0, -22.0, 9.0), radii(19.0, 11.0, 13.0)),
        right_atrium=ellipsoid_distance(points, place(33.0, -3.0, -2.0), radii(11.0, 15.0, 18.0)),
        aorta=capsule_distance(points, root, [root[0] + 4, root[1] + 2, root[2] + 60], radii(11.5)[0]),
        pulmonary_artery=capsule_distance(points, place(4.0, 15.0, 0.0), place(-9.0, 8.0, 40.0), radii(8.5)[0]),
    )
    return chambers, cavity


def _lay_chambers(canvas: Canvas, chambers: _Chambers, left_cavity: np.ndarray, contrast_hu: float) -> None:
    coarse, fine = canvas.noise(10.0), canvas.noise(3.0)
    muscle = canvas.generator.uniform(95, 125) + 8 * coarse + 4 * fine
    flow = 12 * canvas.noise(16.0)
    right_hu = contrast_hu * canvas.generator.uniform(0.4, 0.9)

    def chamber(distance: np.ndarray, wall_mm: float, blood_hu: float, roughness_mm: float) -> None:
        outer = canvas.lay(distance, muscle)
        canvas.lay(outer + wall_mm + roughness_mm * fine, blood_hu + flow)

    chamber(chambers.right_atrium, 2.0, right_hu, 0.4)
    chamber(chambers.right_ventricle, 3.2, right_hu, 0.8)
    chamber(chambers.pulmonary_artery, 1.4, right_hu, 0.0)
    chamber(chambers.left_atrium, 1.8, contrast_hu, 0.2)
    canvas.lay(chambers.left_ventricle, muscle)
    canvas.lay(canvas.lattice.to_grid(left_cavity) + 0.9 * fine, contrast_hu + flow)
    chamber(chambers.aorta, 1.4, contrast_hu, 0.0)


def _fat(generator: np.random.Generator, grid: Grid) -> Float32[np.ndarray, "x y z"]:
    """Fat with slow variation, fine grain, and strands (two random sheets cross in a random curve)."""
    texture = _FAT_HU + 6 * smooth_noise(generator, grid, 7.0) + 7 * smooth_noise(generator, grid, 1.8)
    strands = _threads(generator, grid, scale_mm=7.0, width=0.09)
    return np.asarray(texture + np.float32(75) * strands)


def _threads(
    generator: np.random.Generator, grid: Grid, *, scale_mm: float, width: float
) -> Float32[np.ndarray, "x y z"]:
    first, second = smooth_noise(generator, grid, scale_mm), smooth_noise(generator, grid, scale_mm)
    return np.asarray(np.clip(1.5 - np.hypot(first, second) / np.float32(width), 0, 1))


def _lay_surroundings(canvas: Canvas, pericardium: np.ndarray) -> None:
    points, uniform = canvas.points, canvas.generator.uniform
    cavity = ellipsoid_distance(points, (uniform(-8, 0), -78 + uniform(-3, 3), 0.0), (118.0, 109.0, 190.0))
    cushion = uniform(1.0, 2.5) + 1.5 * np.maximum(0, points[1] / 18) + np.maximum(0, points[0] / 8)
    lung = np.maximum(cavity + 3.0, cushion.astype(np.float32) - pericardium)
    vessels = _threads(canvas.generator, canvas.grid, scale_mm=9.0, width=0.16)
    canvas.lay(lung, _LUNG_HU + 18 * canvas.noise(4.0) + np.float32(830) * vessels)
    depth = canvas.lattice.to_grid(cavity)
    muscle = _MUSCLE_HU + 8 * canvas.noise(2.5)
    streaks = coverage(0.9 - np.abs(canvas.noise(6.0)) * 2.2, 1.0)
    wall = coverage(np.maximum(-1.5 - depth, depth - 13), canvas.grid.spacing_mm[0])
    paint(canvas.hu, muscle, wall * streaks)
    _lay_bones(canvas)


def _lay_bones(canvas: Canvas) -> None:
    points, uniform = canvas.points, canvas.generator.uniform
    marrow = 150 + 50 * canvas.noise(2.0)
    height = uniform(-12, 12)
    bones = [ellipsoid_distance(points, (31.0 + uniform(-3, 4), 37.0, 0.0), (15.0, 6.5, 70.0))]
    for level in (-26.0, 4.0, 34.0):
        start, end = (-2.0, 37.5, level + height), (-60.0, 22.0, level + height - 16)
        bones.append(capsule_distance(points, start, end, 4.2))
    shell = canvas.lay(smooth_union(bones, 1.0), uniform(550, 800))
    canvas.lay(shell + 1.3, marrow)
