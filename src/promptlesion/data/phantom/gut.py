"""Hollow organs: bowel loops and the stomach, with their contents and gas."""

import numpy as np
from scipy.spatial import cKDTree

from promptlesion.data.phantom.canvas import Canvas
from promptlesion.data.phantom.geometry import capsule_distance, ellipsoid_distance, smooth_union
from promptlesion.data.phantom.torso import Torso


def lay_bowel(torso: Torso) -> None:
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


def lay_stomach(canvas: Canvas) -> None:
    """Fundus and antrum with folds, fluid, and gas above it."""
    center, radii = canvas.place(-52.0, 28.0, 45.0), canvas.vary(40.0, 34.0, 44.0)
    fundus = ellipsoid_distance(canvas.points, center, radii)
    antrum = capsule_distance(canvas.points, (center[0] + 10, 45.0, center[2] - 28), (22.0, 40.0, 4.0), 17.0)
    stomach = canvas.lay(smooth_union([fundus, antrum], 6.0), canvas.texture(82.0, 4.0, 8.0), halo_mm=2.5)
    rugae = np.float32(5.0) + 1.6 * canvas.noise(9.0)
    canvas.lay(stomach + rugae, 22 + 7 * canvas.noise(7.0))
    level = np.float32(center[1] + canvas.generator.uniform(2, 16)) - canvas.grid.axes_mm[1]
    canvas.lay(np.maximum(stomach + rugae, level).astype(np.float32), -940.0)
