"""What a scanner does to edges and adds to them: blur and noise, measured, and a lesion without noise."""

import math

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from promptlesion.data.intensity import HUWindow

_SIGMA_PER_DEVIATION = 1.4826
"""Of a normal distribution: its standard deviation over the median absolute deviation."""
_EDGE_REACH_MM, _STEEPEST = 2.5, 0.995
_REACH_VOXELS = 4
_PATCH_VOXELS = 5
NEIGHBOURHOOD_VOXELS = _REACH_VOXELS + _PATCH_VOXELS
"""How far `denoise` looks around a voxel, at most."""
_STRENGTH = 0.5
"""Of the filter, in standard deviations of the noise."""


def robust_sigma(values: Shaped[np.ndarray, "*shape"]) -> float:
    """Return the standard deviation as the median tells it, which few strong voxels do not change."""
    return _SIGMA_PER_DEVIATION * float(np.median(np.abs(values - np.median(values))))


def noise_hu(image: Shaped[np.ndarray, "x y z"], *, window: HUWindow) -> float:
    """Return the standard deviation of an image's noise, told by what a Gaussian of one voxel takes away.

    Voxels that the window cuts off, air and metal, do not count; where nothing else is, it is 0.
    """
    shown = image.astype(np.float32).clip(window.low, window.high)
    fine = (shown - ndimage.gaussian_filter(shown, 1.0))[(shown > window.low) & (shown < window.high)]
    return robust_sigma(fine) if fine.size else 0.0


def blur_mm(hu: Shaped[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return how far a scan is blurred along each axis: the deviation of a Gaussian that makes its steepest edges.

    An edge of a height that is blurred so rises by height / (deviation * sqrt(2 pi)) a millimetre at most. Of the
    steepest 0.5 % of the steps between voxels the median counts, the height being what lies within 2.5 mm of each.
    Where there is no edge, it is half a voxel; it is never less.
    """
    values, found = hu.astype(np.float32), []
    for axis, side in enumerate(spacing_mm):
        step = np.abs(np.diff(values, axis=axis)) / side
        width = 2 * max(2, math.ceil(_EDGE_REACH_MM / side))
        height = ndimage.maximum_filter1d(values, width, axis) - ndimage.minimum_filter1d(values, width, axis)
        after = np.delete(height, 0, axis)
        is_steep = (step > 0) & (step >= np.quantile(step, _STEEPEST)) if step.size else np.zeros_like(step, dtype=bool)
        ratio = after[is_steep] / (step[is_steep] * math.sqrt(2 * math.pi))
        found.append(max(float(np.median(ratio)) if ratio.size else 0.0, side / 2))
    x, y, z = found
    return x, y, z


def denoise(
    image: Shaped[np.ndarray, "x y z"], region: Bool[np.ndarray, "x y z"], *, window: HUWindow
) -> Float32[np.ndarray, "x y z"]:
    """Return an image freed of its noise in a region, elsewhere as it is; all of it is cut off at the window.

    Non-local means (Buades et al. 2005): voxels whose neighbourhoods differ by no more than the noise are averaged, so
    edges stay and a lesion's mean changes by a few HU at most. All of the image is gone through: give a box that
    leaves `NEIGHBOURHOOD_VOXELS` around the region.
    """
    shown = image.astype(np.float32).clip(window.low, window.high)
    sigma = noise_hu(image, window=window)
    if sigma == 0 or not region.any():
        return shown
    smooth = denoise_nl_means(
        shown, patch_size=_PATCH_VOXELS, patch_distance=_REACH_VOXELS, h=_STRENGTH * sigma, sigma=sigma
    )
    return np.asarray(np.where(region, smooth, shown))
