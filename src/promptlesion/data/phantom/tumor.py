"""Tumours of liver, kidney and pancreas: ragged ellipsoids, each organ with its contrast and margin."""

import numpy as np
from jaxtyping import Float32

from promptlesion.data.phantom.canvas import Canvas
from promptlesion.data.phantom.geometry import crumbs, ellipsoid_distance
from promptlesion.data.phantom.viscera import KIDNEY, PANCREAS, Viscera

_END_MM = 22.0
"""No tumour has its centre as near to the first or last slice."""
LIVER_TUMOR, KIDNEY_TUMOR, PANCREAS_TUMOR = 5, 6, 7


def lay_liver_tumor(canvas: Canvas, viscera: Viscera) -> None:
    """Hypodense with a fuzzy margin, some with an enhancing rim or a necrotic core; all inside the liver."""
    uniform = canvas.generator.uniform
    diameter = uniform(11, 42)
    tumor = _ragged(canvas, viscera.liver_mm, diameter, depth_mm=(0.35 * diameter, 60.0), roughness=0.16)
    if tumor is None:
        return
    tumor = np.maximum(tumor, viscera.liver_mm + 1)
    mean = viscera.liver_hu - uniform(40, 60)
    edge = uniform(3.0, 6.0)
    if uniform() < 0.45:
        canvas.lay(tumor, viscera.liver_hu + uniform(15, 35), label=LIVER_TUMOR, edge_mm=edge)
        canvas.lay(tumor + np.float32(3), canvas.texture(mean, 4.0, 8.0), label=LIVER_TUMOR, edge_mm=edge)
    else:
        canvas.lay(tumor, canvas.texture(mean, 4.0, 8.0), label=LIVER_TUMOR, edge_mm=edge)
    if diameter > 20 and uniform() < 0.6:
        core = tumor + np.float32(0.3 * diameter) + 2 * canvas.noise(8.0)
        canvas.lay(core, uniform(18, 35), label=LIVER_TUMOR, edge_mm=6.0)


def lay_kidney_tumor(canvas: Canvas, viscera: Viscera) -> None:
    """Mixed enhancement, a sharp margin, bulging out of the kidney; large ones are necrotic inside."""
    uniform = canvas.generator.uniform
    is_closed = (canvas.labels != KIDNEY) & (canvas.hu > -40) & (viscera.kidney_mm > 0.5)
    diameter = uniform(16, 46)
    tumor = _ragged(canvas, viscera.kidney_mm, diameter, depth_mm=(-0.12 * diameter, 7.0), roughness=0.1)
    if tumor is None:
        return
    tumor = np.where(is_closed, np.maximum(tumor, 2), tumor)
    mean, spread = uniform(62, 95), uniform(12, 22)
    mixed = mean + spread * canvas.noise(9.0) + 6 * canvas.noise(4.5)
    canvas.lay(tumor, 85.0, label=KIDNEY_TUMOR, halo_mm=0.0)
    canvas.lay(tumor + np.float32(1.0), mixed, label=KIDNEY_TUMOR)
    if diameter > 22:
        core = tumor + np.float32(uniform(0.2, 0.3) * diameter) + 3 * canvas.noise(10.0)
        canvas.lay(core, uniform(15, 32), label=KIDNEY_TUMOR, edge_mm=4.0)


def lay_pancreas_tumor(canvas: Canvas, viscera: Viscera) -> None:
    """Faintly hypodense, blurred into the gland, which swells a little around them."""
    uniform = canvas.generator.uniform
    is_closed = (canvas.labels != PANCREAS) & (canvas.hu > -40) & (viscera.pancreas_mm > 0.5)
    diameter = uniform(13, 30)
    tumor = _ragged(canvas, viscera.pancreas_mm, diameter, depth_mm=(4.0, 60.0), roughness=0.2)
    if tumor is None:
        return
    tumor = np.maximum(tumor, viscera.pancreas_mm - np.float32(uniform(3, 5)))
    tumor = np.where(is_closed, np.maximum(tumor, 2), tumor)
    mean = uniform(36, 60)
    canvas.lay(tumor, canvas.texture(mean, 4.0, 7.0), label=PANCREAS_TUMOR, edge_mm=uniform(4.0, 7.0))


def drop_crumbs(canvas: Canvas) -> None:
    """Unlabels the few voxels that a neighbouring organ cuts off a tumour."""
    for label in (LIVER_TUMOR, KIDNEY_TUMOR, PANCREAS_TUMOR):
        canvas.labels[crumbs(canvas.labels == label)] = 0


def _ragged(
    canvas: Canvas,
    host_mm: Float32[np.ndarray, "x y z"],
    diameter_mm: float,
    *,
    depth_mm: tuple[float, float],
    roughness: float,
) -> Float32[np.ndarray, "x y z"] | None:
    """Distance to a deformed ellipsoid whose centre lies within the given depths below the host's surface."""
    generator = canvas.generator
    is_at_end = np.abs(canvas.grid.axes_mm[2]) > canvas.grid.half_extent_mm[2] - _END_MM
    is_candidate = (host_mm < -depth_mm[0]) & (host_mm > -depth_mm[1]) & ~is_at_end
    is_candidate &= canvas.labels < LIVER_TUMOR
    candidates = np.flatnonzero(is_candidate)
    if not len(candidates):
        return None
    chosen = np.unravel_index(int(generator.choice(candidates)), canvas.grid.shape)
    center = [float(axis.ravel()[index]) for axis, index in zip(canvas.grid.axes_mm, chosen, strict=True)]
    radii = [float(diameter_mm / 2 * generator.uniform(0.82, 1.2)) for _ in range(3)]
    direction = [float(v) for v in generator.standard_normal(3)]
    bumps = np.float32(roughness * diameter_mm / 2) * canvas.noise(max(8.0, diameter_mm * 0.4))
    distance = ellipsoid_distance(canvas.grid.axes_mm, center, radii, direction)
    return np.asarray(distance + np.clip(bumps, -0.3 * diameter_mm, 0.3 * diameter_mm), dtype=np.float32)
