"""The body that abdominal organs lie in: skin, fat, muscle, spine, ribs, and the bases of the lungs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from promptlesion.data.phantom.canvas import Canvas
from promptlesion.data.phantom.geometry import (
    Grid,
    Lattice,
    capsule_distance,
    displaced,
    ellipsoid_distance,
    smooth_noise,
    smooth_union,
)

_TALL_MM = 3000.0
_RIB_PITCH_MM = 27.0


@dataclass(frozen=True)
class Torso:
    """The painted body and, on the lattice, distances to its abdominal cavity and to the diaphragm."""

    canvas: Canvas
    cavity_mm: Float32[np.ndarray, "_ _ _"]
    above_diaphragm_mm: Float32[np.ndarray, "_ _ _"]


def build_torso(generator: np.random.Generator, grid: Grid) -> Torso:
    """A body of random girth, fatness and muscle, empty but for visceral fat, bones and lungs."""
    lattice = Lattice(grid, 5.0)
    points = displaced(generator, lattice, scale_mm=50.0, amplitude_mm=2.5)
    fat = -102 + 7 * smooth_noise(generator, grid, 14.0) + 6 * smooth_noise(generator, grid, 5.0)
    strand = np.abs(smooth_noise(generator, grid, 18.0))
    fat += np.float32(40) * np.clip(1 - strand / 0.07, 0, 1)
    canvas = Canvas(grid, lattice, points, generator, np.full(grid.shape, -1000, np.float32), fat)
    girth = generator.uniform(0.9, 1.04)
    width, depth = 152 * girth * generator.uniform(0.97, 1.03), 108 * girth * generator.uniform(0.95, 1.05)
    fatness = generator.uniform(9, 22)
    body = ellipsoid_distance(points, (0.0, 0.0, 0.0), (width, depth, _TALL_MM))
    back = np.clip(-points[1] / depth, 0, 1)
    wall = ellipsoid_distance(points, (0.0, 3.0, 0.0), (width - fatness * 0.9, depth - fatness, _TALL_MM)) + np.float32(
        3
    ) * (1 - back)
    muscle_mm = generator.uniform(10, 14)
    cavity = wall + np.float32(muscle_mm) + 14 * back**2
    _lay_table(canvas)
    canvas.lay(body, 15.0)
    canvas.lay(body + np.float32(2.2), fat)
    muscle = canvas.texture(generator.uniform(52.0, 66.0), 3.0, 7.0)
    streaks = np.clip(np.abs(canvas.noise(16.0)) / 0.12, 0, 1)
    layers = np.clip(np.abs(canvas.lattice.to_grid(wall) + np.float32(0.45 * muscle_mm)) / 1.6, 0.55, 1)
    streaks = np.minimum(streaks, layers)
    canvas.lay(wall, muscle * streaks + fat * (1 - streaks))
    inside = canvas.lay(cavity, fat)
    dome = _dome(generator, points)
    _lay_back_muscles(canvas, muscle)
    _lay_ribs(canvas, inside, float(muscle_mm))
    _lay_spine(canvas)
    _lay_lungs(canvas, cavity, dome)
    return Torso(canvas, cavity, dome)


def _lay_table(canvas: Canvas) -> None:
    lowest = -float(canvas.grid.half_extent_mm[1]) + canvas.generator.uniform(8, 14)
    top = ellipsoid_distance(canvas.grid.axes_mm, (0.0, lowest + 420, 0.0), (460.0, 420.0, _TALL_MM))
    top = np.broadcast_to(top, canvas.grid.shape)
    canvas.lay(np.abs(top) - np.float32(1.0), -450.0)


def _dome(generator: np.random.Generator, points: tuple[np.ndarray, ...]) -> Float32[np.ndarray, "_ _ _"]:
    """Height above the diaphragm, which arches over the liver on the right and a little lower on the left."""
    top = generator.uniform(82, 100)
    right = top - ((points[0] - 62) ** 2 + 0.9 * (points[1] - 8) ** 2) / 95
    left = top - 10 - ((points[0] + 68) ** 2 + 0.9 * (points[1] - 5) ** 2) / 95
    middle = top - 14 - (points[0] ** 2 * 0.5 + (points[1] - 35) ** 2) / 130
    return np.asarray(0.75 * (points[2] + smooth_union([-right, -left, -middle], 5.0)), dtype=np.float32)


def _lay_back_muscles(canvas: Canvas, muscle: np.ndarray) -> None:
    size = canvas.generator.uniform(0.9, 1.12)
    for side in (-1.0, 1.0):
        erector = ellipsoid_distance(canvas.points, (side * 31, -80.0, 0.0), (27 * size, 19 * size, _TALL_MM))
        canvas.lay(erector, muscle)
        psoas = ellipsoid_distance(canvas.points, (side * 36, -46.0, -120.0), (18 * size, 19 * size, 125.0))
        canvas.lay(psoas, muscle)
        quadratus = ellipsoid_distance(canvas.points, (side * 68, -62.0, -110.0), (21 * size, 9 * size, 110.0))
        canvas.lay(quadratus, muscle)


def _lay_ribs(canvas: Canvas, cavity_mm: np.ndarray, muscle_mm: float) -> None:
    first, second, third = canvas.grid.axes_mm
    turn = np.arctan2(np.abs(first), -(second + 10))
    phase = canvas.generator.uniform(0, _RIB_PITCH_MM)
    height = np.mod(third + 75 * turn + phase, _RIB_PITCH_MM) - _RIB_PITCH_MM / 2
    across = cavity_mm - np.float32(muscle_mm * 0.45) - 5 * np.cos(turn) ** 2
    distance = np.hypot(across, height * 0.55).astype(np.float32) - np.float32(4.2)
    # Costal margin: toward the front the ribs end higher up.
    margin = (-62 + 42 * np.maximum(turn - 0.9, 0)) - third
    distance = np.maximum(distance, margin.astype(np.float32))
    distance = np.maximum(distance, (10 - np.abs(first)).astype(np.float32))
    canvas.lay(distance, canvas.generator.uniform(420, 650))
    canvas.lay(distance + np.float32(2.0), 190.0)


def _lay_spine(canvas: Canvas) -> None:
    generator, (first, second, third) = canvas.generator, canvas.points
    size = generator.uniform(0.93, 1.07)
    center = -57.0
    height = np.mod(third + generator.uniform(0, 36), np.float32(36)) - 18
    waist = 1.6 * np.clip(np.abs(height) / 14, 0, 1) ** 2
    bodies = ellipsoid_distance(canvas.points, (0.0, center, 0.0), (22 * size, 17 * size, _TALL_MM)) - waist
    canvas.lay(bodies, 85.0)
    column = np.maximum(bodies, np.abs(height) - 13.5).astype(np.float32)
    arch = [
        capsule_distance(canvas.points, (0.0, -88.0, -200.0), (0.0, -88.0, 200.0), 13.0),
        np.maximum(
            capsule_distance(canvas.points, (0.0, -92.0, -200.0), (0.0, -92.0, 200.0), 3.0),
            np.abs(height + 6) - 9,
        ),
    ]
    for side in (-1.0, 1.0):
        along = np.clip(side * first, 8, 36)
        process = np.hypot(np.hypot(second + 82 + 0.12 * along, height), first - side * along) - 4.5
        arch.append(process.astype(np.float32))
    spine_y = np.clip(-second, 92, 114)
    spinous = np.hypot(first, -second - spine_y).astype(np.float32) - 4.0
    arch.append(np.maximum(spinous, np.abs(height + 8) - 9).astype(np.float32))
    ring = smooth_union(arch, 1.5)
    cortex, marrow = generator.uniform(350, 480), generator.uniform(140, 230)
    trabeculae = marrow + 25 * canvas.noise(4.5)
    for bone in (column, ring):
        distance = canvas.lay(bone, cortex)
        canvas.lay(distance + np.float32(2.2), trabeculae)
    canvas.lay(capsule_distance(canvas.points, (0.0, -84.0, -200.0), (0.0, -84.0, 200.0), 8.5), 28.0)


def _lay_lungs(canvas: Canvas, cavity_mm: np.ndarray, above_diaphragm: np.ndarray) -> None:
    lung = np.maximum(cavity_mm + 3, 2 - above_diaphragm).astype(np.float32)
    mediastinum = ellipsoid_distance(canvas.points, (-8.0, -2.0, 130.0), (42.0, 62.0, 95.0))
    spine = ellipsoid_distance(canvas.points, (0.0, -58.0, 0.0), (34.0, 30.0, _TALL_MM))
    lung = np.maximum(np.maximum(lung, 2 - mediastinum), 3 - spine)
    vessels = np.clip(1.5 - np.hypot(canvas.noise(22.0), canvas.noise(22.0)) / 0.13, 0, 1)
    air = -860 + 15 * canvas.noise(8.0) + np.float32(800) * vessels
    canvas.lay(lung - np.float32(1.5), 35.0)
    canvas.lay(lung, air)
    heart = ellipsoid_distance(canvas.points, (-18.0, 32.0, 140.0), (50.0, 40.0, 52.0))
    canvas.lay(heart, canvas.texture(125.0, 6.0, 5.0))
