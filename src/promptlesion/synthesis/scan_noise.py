"""The scan's noise, which no autoencoder keeps: measured where a lesion goes, drawn anew, and put onto it."""

import numpy as np
from jaxtyping import Float32, Shaped
from scipy import fft, ndimage

from promptlesion.data.boxes import Box
from promptlesion.data.noise import robust_sigma

_MOST_SIGMAS = 2.5


def lost_noise(
    scan: Shaped[np.ndarray, "x y z"],
    autoencoded: Float32[np.ndarray, "x y z"],
    *,
    sigma_voxels: tuple[float, float, float],
) -> Float32[np.ndarray, "x y z"]:
    """Return what an autoencoder lost of a scan, as far as it is noise.

    The difference, less what a Gaussian leaves of it: that would be anatomy. What stands out of the rest by more than
    2.5 of its standard deviations, told by the median, is cut off there: edges of vessels.
    """
    fine = fine_part(scan.astype(np.float32) - autoencoded, sigma_voxels=sigma_voxels)
    limit = _MOST_SIGMAS * robust_sigma(fine)
    noise: np.ndarray = fine.clip(-limit, limit)
    return noise


def fine_part(
    hu: Float32[np.ndarray, "x y z"], *, sigma_voxels: tuple[float, float, float]
) -> Float32[np.ndarray, "x y z"]:
    """Return what a Gaussian takes away."""
    fine: np.ndarray = hu - ndimage.gaussian_filter(hu, sigma_voxels, mode="nearest")
    return fine


def draw_noise(
    noise: Float32[np.ndarray, "x y z"], near: Box, *, generator: np.random.Generator, present_hu: float = 0.0
) -> Float32[np.ndarray, "x y z"]:
    """Draw other noise with the same power at every frequency, as strong as the given one is in a box.

    Thin structures, which look like noise to `lost_noise`, go: of a fat stripe under a lesion nothing is to be seen.

    Args:
        near: where its strength counts.
        present_hu: standard deviation of what varies as finely there already; the noise is weaker by it.
    """
    power = np.abs(fft.rfftn(noise))
    white = fft.rfftn(generator.normal(size=noise.shape).astype(np.float32))
    drawn: np.ndarray = fft.irfftn(power * white / np.maximum(np.abs(white), 1e-12), s=noise.shape).astype(np.float32)
    strength, wanted = robust_sigma(drawn), max(0.0, robust_sigma(noise[near]) ** 2 - present_hu**2) ** 0.5
    return drawn * np.float32(wanted / strength if strength > 0 else 0)
