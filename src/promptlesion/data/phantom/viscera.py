"""Abdominal organs and large vessels in portal-venous contrast, laid into a torso; bowel and stomach hold gas."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32
from scipy.spatial import cKDTree

from promptlesion.data.phantom.canvas import Canvas
from promptlesion.data.phantom.geometry import capsule_distance, ellipsoid_distance, smooth_union
from promptlesion.data.phantom.torso import Torso

LIVER, KIDNEY, PANCREAS, SPLEEN = 1, 2, 3, 4


@dataclass(frozen=True)
class Viscera:
    """Distances, at every voxel, to the organs that tumours grow in, and the liver's own attenuation."""

    liver_mm: Float32[np.ndarray, "x y z"]
    kidney_mm: Float32[np.ndarray, "x y z"]
    pancreas_mm: Float32[np.ndarray, "x y z"]
    liver_hu: float


def lay_viscera(torso: Torso) -> Viscera:
    """All organs of one subject, with positions, sizes and contrast of its own."""
    canvas, uniform = torso.canvas, torso.canvas.generator.uniform
    liver_hu, vein_hu, artery_hu, cortex_hu, medulla_hu, pancreas_hu, spleen_hu = (
        uniform(*limits)
        for limits in ((98, 122), (160, 195), (140, 180), (165, 205), (120, 160), (92, 116), (112, 132))
    )
    _lay_bowel(torso)
    _lay_large_vessels(canvas, vein_hu, artery_hu)
    _lay_stomach(canvas)
    _lay_spleen(torso, spleen_hu)
    kidney = _lay_kidneys(canvas, cortex_hu, medulla_hu)
    liver = _lay_liver(torso, liver_hu, vein_hu)
    pancreas = _lay_pancreas(canvas, pancreas_hu, vein_hu)
    return Viscera(liver, kidney, pancreas, liver_hu)


def _lay_bowel(torso: Torso) -> None:
    """Packed loops: cells around random points, each with its own contents, gas collecting at the front."""
    canvas = torso.canvas
    region = smooth_union(
        [
            ellipsoid_distance(canvas.points, (0.0, 32.0, -95.0), (100.0, 42.0, 72.0)),
            ellipsoid_distance(canvas.points, (96.0, 0.0, -95.0), (24.0, 24.0, 60.0)),
            ellipsoid_distance(canvas.points, (-48.0, 36.0, -32.0), (54.0, 36.0, 52.0)),
            ellipsoid_distance(canvas.points, (-98.0, -8.0, -60.0), (20.0, 20.0, 100.0)),
        ],
        4.0,
    )
    region = np.maximum(region, torso.cavity_mm + 4)
    grid_region = canvas.lattice.to_grid(region)
    low, high = np.array([-125.0, -40.0, -160.0]), np.array([125.0, 90.0, 40.0])
    centers = canvas.generator.uniform(low, high, (380, 3))
    voxels = np.nonzero(grid_region < 3)
    warped = [canvas.lattice.to_grid(np.broadcast_to(axis, canvas.lattice.shape))[voxels] for axis in canvas.points]
    distances, cells = cKDTree(centers).query(np.stack(warped, axis=1), k=2)
    radius = canvas.generator.uniform(11, 18, len(centers))[cells[:, 0]]
    inside = np.maximum(distances[:, 0] - radius, (distances[:, 0] - distances[:, 1]) / 2 + 0.5)
    loop = np.full(canvas.grid.shape, 50, np.float32)
    loop[voxels] = np.maximum(inside, grid_region[voxels])
    canvas.lay(loop, canvas.texture(85.0, 5.0, 8.0))
    contents = canvas.generator.choice([18.0, 30.0, 45.0, 70.0], len(centers))[cells[:, 0]]
    has_gas = (canvas.generator.uniform(size=len(centers)) < 0.2)[cells[:, 0]]
    is_high = warped[1] > centers[cells[:, 0], 1] + 1
    filling = np.zeros(canvas.grid.shape, np.float32)
    filling[voxels] = np.where(has_gas & is_high, -920, contents)
    canvas.lay(loop + np.float32(3.2), filling + 6 * canvas.noise(6.0))


def _lay_stomach(canvas: Canvas) -> None:
    """Fundus and antrum with folds, fluid, and gas above it."""
    center, radii = canvas.place(-52.0, 28.0, 45.0), canvas.vary(40.0, 34.0, 44.0)
    fundus = ellipsoid_distance(canvas.points, center, radii)
    antrum = capsule_distance(canvas.points, (center[0] + 10, 45.0, center[2] - 28), (22.0, 40.0, 4.0), 17.0)
    stomach = canvas.lay(smooth_union([fundus, antrum], 6.0), canvas.texture(82.0, 4.0, 8.0), halo_mm=2.5)
    rugae = np.float32(5.0) + 1.6 * canvas.noise(9.0)
    canvas.lay(stomach + rugae, 22 + 7 * canvas.noise(7.0))
    level = np.float32(center[1] + canvas.generator.uniform(2, 16)) - canvas.grid.axes_mm[1]
    canvas.lay(np.maximum(stomach + rugae, level).astype(np.float32), -940.0)


def _lay_large_vessels(canvas: Canvas, vein_hu: float, artery_hu: float) -> None:
    def tube(start: tuple[float, ...], end: tuple[float, ...], radius_mm: float, value: float) -> None:
        canvas.lay(capsule_distance(canvas.points, start, end, radius_mm), value, halo_mm=1.5)

    aorta_x, cava_x = canvas.place(-9.0, 0.0, 0.0, 3.0)[0], canvas.place(19.0, 0.0, 0.0, 3.0)[0]
    radius = canvas.generator.uniform(9.0, 12.0)
    tube((cava_x, -32.0, -200.0), (cava_x + 4, -22.0, 160.0), radius + 1, vein_hu - 15)
    for side, hilum in ((1.0, (42.0, -40.0, -24.0)), (-1.0, (-42.0, -40.0, -14.0))):
        tube(hilum, (cava_x if side > 0 else aorta_x, -22.0, hilum[2] + 6), 5.0, vein_hu)
    tube((aorta_x, -29.0, -200.0), (aorta_x, -29.0, 200.0), radius, artery_hu)
    tube((aorta_x + 4, -18.0, 4.0), (aorta_x + 8, 2.0, -110.0), 4.0, artery_hu)
    tube((aorta_x + 20, 4.0, 4.0), (aorta_x + 18, 6.0, -110.0), 5.5, vein_hu)


def _lay_spleen(torso: Torso, spleen_hu: float) -> None:
    canvas = torso.canvas
    center = canvas.place(-92.0, -28.0, 38.0)
    spleen = ellipsoid_distance(canvas.points, center, canvas.vary(54.0, 26.0, 40.0), (0.25, 0.35, 0.9))
    hilum = ellipsoid_distance(canvas.points, (center[0] + 34, center[1] + 18, center[2]), (22.0, 20.0, 34.0))
    spleen = np.maximum(np.maximum(spleen, -hilum), torso.cavity_mm + 2.5)
    spleen = np.maximum(spleen, torso.above_diaphragm_mm + 4).astype(np.float32)
    canvas.lay(spleen, canvas.texture(spleen_hu, 3.0, 4.0), label=SPLEEN, halo_mm=2.5)


def _lay_kidneys(canvas: Canvas, cortex_hu: float, medulla_hu: float) -> Float32[np.ndarray, "x y z"]:
    kidneys = np.full(canvas.grid.shape, 99, np.float32)
    for side, height in ((1.0, -28.0), (-1.0, -14.0)):
        center = canvas.place(side * 66.0, -40.0, height)
        radii = canvas.vary(52.0, 27.0, 25.0)
        shape = ellipsoid_distance(canvas.points, center, radii, (-side * 0.22, -0.12, 1.0))
        sinus_center = (center[0] - side * 19, center[1] + 7, center[2])
        sinus = ellipsoid_distance(canvas.points, sinus_center, (15.0, 11.0, 24.0))
        kidney = canvas.lay(np.maximum(shape, -sinus), canvas.texture(cortex_hu, 4.0, 5.0), label=KIDNEY, halo_mm=4.0)
        depth, toward = canvas.lattice.to_grid(shape), canvas.lattice.to_grid(sinus)
        columns = np.float32(3.0) * np.maximum(canvas.noise(14.0), 0)
        medulla = np.maximum(np.maximum(depth + 7 + columns, kidney + 3), toward - 13)
        paint_value = canvas.texture(medulla_hu, 4.0, 5.0)
        canvas.lay(medulla.astype(np.float32), paint_value, label=KIDNEY, edge_mm=3.5)
        pelvis = ellipsoid_distance(canvas.points, sinus_center, (9.0, 5.0, 12.0))
        canvas.lay(pelvis, canvas.generator.uniform(10, 60))
        kidneys = np.minimum(kidneys, kidney)
    return kidneys


def _lay_liver(torso: Torso, liver_hu: float, vein_hu: float) -> Float32[np.ndarray, "x y z"]:
    canvas = torso.canvas
    size = canvas.generator.uniform(0.92, 1.08)
    right = ellipsoid_distance(
        canvas.points, canvas.place(72.0, 0.0, 26.0), [r * size for r in canvas.vary(62.0, 80.0, 84.0)]
    )
    left = ellipsoid_distance(
        canvas.points, canvas.place(4.0, 42.0, 48.0), [r * size for r in canvas.vary(62.0, 30.0, 34.0)]
    )
    liver = smooth_union([right, left], 5.0)
    spine = ellipsoid_distance(canvas.points, (0.0, -50.0, 0.0), (42.0, 40.0, 3000.0))
    kidney = ellipsoid_distance(canvas.points, (62.0, -44.0, -32.0), (33.0, 33.0, 60.0))
    hilum = smooth_union(
        [
            capsule_distance(canvas.points, (4.0, 10.0, 6.0), (38.0, 12.0, 2.0), 13.0),
            capsule_distance(canvas.points, (36.0, 10.0, -4.0), (38.0, 10.0, -90.0), 30.0),
        ],
        5.0,
    )
    limits = [torso.cavity_mm + 2.5, torso.above_diaphragm_mm + 3, -spine, -kidney, -hilum]
    liver = np.maximum.reduce([liver, *limits]).astype(np.float32)
    distance = canvas.lay(liver, canvas.texture(liver_hu, 2.5, 3.5), label=LIVER, halo_mm=2.0)
    calibre = np.float32(0.13) + np.clip(-distance / 250, 0, 0.14)
    tree = np.minimum(
        np.hypot(canvas.noise(48.0), canvas.noise(48.0)) / calibre,
        np.hypot(canvas.noise(30.0), canvas.noise(30.0)) / (0.7 * calibre),
    )
    vessels = np.maximum((tree - 1) * 3, distance + 5).astype(np.float32)
    canvas.lay(vessels, vein_hu, label=LIVER)
    portal = capsule_distance(canvas.points, (12.0, 8.0, 4.0), (44.0, 10.0, 14.0), 6.5)
    canvas.lay(portal, vein_hu)
    gallbladder = ellipsoid_distance(
        canvas.points, canvas.place(60.0, 46.0, -20.0), canvas.vary(28.0, 14.0, 14.0), (0.3, 0.4, -0.9)
    )
    canvas.lay(gallbladder - np.float32(1.5), 70.0)
    canvas.lay(gallbladder, 8.0)
    # Tumours keep off the gallbladder and the portal vein.
    outside = np.maximum(-gallbladder, 6.0 - portal)
    return np.asarray(np.maximum(distance, canvas.lattice.to_grid(np.minimum(outside, 4.0)) - 1.5))


def _lay_pancreas(canvas: Canvas, pancreas_hu: float, vein_hu: float) -> Float32[np.ndarray, "x y z"]:
    shift = canvas.generator.uniform(-4, 4, 3)
    joints = np.array(
        [[33, 6, -26], [33, 10, -8], [20, 18, 2], [2, 20, 6], [-20, 14, 14], [-42, 2, 24], [-64, -12, 32]]
    )
    joints = joints + shift + canvas.generator.uniform(-2.5, 2.5, joints.shape)
    radii = np.array([13.0, 13.5, 9.0, 8.5, 9.0, 9.5]) * canvas.generator.uniform(0.95, 1.2, 6)
    duodenum = capsule_distance(canvas.points, (51.0, 8.0, -2.0), (51.0, 2.0, -52.0), 13.0)
    wall = canvas.lay(duodenum, canvas.texture(80.0, 4.0, 6.0), halo_mm=1.5)
    canvas.lay(wall + np.float32(3.5), 30.0)
    parts = [
        capsule_distance(canvas.points, start.tolist(), end.tolist(), float(radius))
        for start, end, radius in zip(joints, joints[1:], radii, strict=False)
    ]
    vein = [
        capsule_distance(canvas.points, start.tolist(), end.tolist(), 4.0)
        for start, end in pairwise(joints[3:] + np.array([0, -11, 2]))
    ]
    canvas.lay(smooth_union(vein, 1.0), vein_hu, halo_mm=1.5)
    lobules = 1.9 * np.abs(canvas.noise(9.0)) - np.float32(0.8)
    shape = canvas.lattice.to_grid(smooth_union(parts, 2.5)) + lobules
    lobulated = canvas.texture(pancreas_hu, 4.0, 5.0) - 16 * np.clip(canvas.noise(6.0), 0, 2)
    return canvas.lay(shape, lobulated, label=PANCREAS, halo_mm=2.0)
