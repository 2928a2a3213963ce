"""What a scanner makes of ideal attenuation values: blurred, with correlated noise, in whole numbers."""

import numpy as np
from jaxtyping import Float32, Int16
from scipy import ndimage

from promptlesion.data.phantom.geometry import Grid

LOWEST_HU, HIGHEST_HU = -1024, 3071


def correlated_noise(generator: np.random.Generator, grid: Grid, grain_mm: float) -> Float32[np.ndarray, "x y z"]:
    """Unit variance noise with the band-pass spectrum of filtered back projection under a soft kernel.

    A ramp that falls off: white noise smoothed to `grain_mm`, less a part of itself smoothed twice as far.
    """
    white = generator.standard_normal(grid.shape, dtype=np.float32)
    fine = [grain_mm / step for step in grid.spacing_mm]
    smooth = ndimage.gaussian_filter(white, fine, mode="wrap", truncate=2.5)
    in_plane = (fine[0] * 1.5, fine[1] * 1.5, 0.0)
    smooth -= np.float32(0.7) * ndimage.gaussian_filter(smooth, in_plane, mode="wrap", truncate=2.5)
    return np.asarray(smooth / np.float32(smooth.std()))


def scan(
    hu: Float32[np.ndarray, "x y z"],
    grid: Grid,
    generator: np.random.Generator,
    *,
    point_spread_mm: tuple[float, float],
    noise_hu: float,
    noise_grain_mm: float,
) -> Int16[np.ndarray, "x y z"]:
    """The image a scanner would store of the given attenuation values.

    `point_spread_mm` are Gaussian standard deviations in plane and along z.
    """
    in_plane_mm, z_mm = point_spread_mm
    sigmas = [sigma / step for sigma, step in zip((in_plane_mm, in_plane_mm, z_mm), grid.spacing_mm, strict=True)]
    blurred = ndimage.gaussian_filter(hu, sigmas, mode="nearest", truncate=3.0)
    blurred += noise_hu * correlated_noise(generator, grid, noise_grain_mm)
    return np.asarray(np.rint(np.clip(blurred, LOWEST_HU, HIGHEST_HU)), dtype=np.int16)
