"""The scan's noise, which no autoencoder keeps: taken from where a lesion goes, and put back onto it."""

import numpy as np
from jaxtyping import Float32, Shaped
from scipy import ndimage

_SIGMA_PER_DEVIATION = 1.4826
"""Of a normal distribution: its standard deviation over the median absolute deviation."""
_MOST_SIGMAS = 2.5


def lost_noise(
    scan: Shaped[np.ndarray, "x y z"],
    autoencoded: Float32[np.ndarray, "x y z"],
    *,
    sigma_voxels: tuple[float, float, float],
) -> Float32[np.ndarray, "x y z"]:
    """Return what an autoencoder lost of a scan, as far as it is noise.

    The difference, less what a Gaussian leaves of it: that would be anatomy, which the lesion is to cover. What stands
    out of the rest by more than 2.5 of its standard deviations, told by the median, is cut off there: edges of vessels.

    Args:
        scan: HU of a box.
        autoencoded: HU of the same box, encoded and decoded.
        sigma_voxels: of the Gaussian, along each axis.
    """
    lost = scan.astype(np.float32) - autoencoded
    fine = lost - ndimage.gaussian_filter(lost, sigma_voxels, mode="nearest")
    limit = _MOST_SIGMAS * _SIGMA_PER_DEVIATION * float(np.median(np.abs(fine - np.median(fine))))
    noise: np.ndarray = fine.clip(-limit, limit)
    return noise
