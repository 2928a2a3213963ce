"""The noise of a scan: how strong it is, and a lesion without it."""

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from scipy import ndimage
from skimage.restoration import denoise_nl_means

from promptlesion.data.intensity import HUWindow

_SIGMA_PER_DEVIATION = 1.4826
"""Of a normal distribution: its standard deviation over the median absolute deviation."""
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
