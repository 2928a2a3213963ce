"""Random changes of training patches: mirrored, turned and scaled in millimetres, and shown by another scanner."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, Int16, UInt8
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from promptlesion.data.crops import crop

IntensityChange = Callable[[Float32[np.ndarray, "x y z"], np.random.Generator], Float32[np.ndarray, "x y z"]]
"""Takes a patch normalised to [-1, 1] and may leave that range."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a patch, and how often; each happens or not on its own."""

    mirror_probability: float
    """For each axis."""
    rotation_probability: float
    max_rotation_degrees: float
    """About each axis, either way."""
    scaling_probability: float
    scaling_range: tuple[float, float]
    """Of the factor, the same along all axes; above 1 things grow."""
    intensity_changes: tuple[tuple[float, IntensityChange], ...]
    """Each with its probability, in the order they happen."""

    def draw_warp(
        self, spacing_mm: tuple[float, float, float], generator: np.random.Generator
    ) -> Float64[np.ndarray, "3 3"] | None:
        """Draw a rotation and a scaling: where a step in the patch leads in the scan, both in voxels; none: as is.

        Angles are true in millimetres, whatever the shape of the voxels.
        """
        is_turned = generator.random() < self.rotation_probability
        is_scaled = generator.random() < self.scaling_probability
        angles = np.radians(generator.uniform(-self.max_rotation_degrees, self.max_rotation_degrees, 3))
        factor = np.exp(generator.uniform(*np.log(self.scaling_range)))
        if not is_turned and not is_scaled:
            return None
        spacing = np.diag(spacing_mm)
        turn = Rotation.from_euler("xyz", angles).as_matrix() if is_turned else np.eye(3)
        return np.asarray(np.linalg.inv(spacing) @ turn @ spacing / (factor if is_scaled else 1.0))

    def change_intensity(
        self, image: Float32[np.ndarray, "x y z"], generator: np.random.Generator
    ) -> Float32[np.ndarray, "x y z"]:
        """Return the patch as another scan might show it, within [-1, 1] like every scan in its HU window."""
        changed = image
        for probability, change in self.intensity_changes:
            if generator.random() < probability:
                changed = change(changed, generator)
        return changed if changed is image else np.clip(changed, -1.0, 1.0)


def warped_patch(
    image: Int16[np.ndarray, "x y z"],
    labels: UInt8[np.ndarray, "x y z"],
    *,
    start: tuple[int, int, int],
    size: tuple[int, int, int],
    warp: Float64[np.ndarray, "3 3"],
    fill_hu: int,
) -> tuple[Float32[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
    """Cut a patch out of a scan, turned and scaled about its centre; HU interpolated, labels the nearest voxel's.

    Only the region the patch comes from is read, and it is resampled once. `start` is where the patch would begin as it
    is, `warp` where a step in it leads in the scan; see `Augmentation.draw_warp`. Outside the scan labels are 0.
    """
    half = (np.array(size) - 1) / 2
    centre = np.array(start) + half
    reach = np.abs(warp) @ half
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int)
    first, extent = (int(low[0]), int(low[1]), int(low[2])), tuple(int(length) for length in high - low + 1)
    region = (extent[0], extent[1], extent[2])
    grid = _sampling_grid(size, warp, centre - low, region)
    hu = crop(image, first, region, fill_hu).astype(np.float32)
    label = crop(labels, first, region, 0).astype(np.float32)
    return _sample(hu, grid, "bilinear"), _sample(label, grid, "nearest").astype(np.uint8)


def _sampling_grid(
    size: tuple[int, int, int],
    warp: Float64[np.ndarray, "3 3"],
    centre: Float64[np.ndarray, "3"],
    region: tuple[int, int, int],
) -> Float32[Tensor, "1 i j k 3"]:
    """Return torch's coordinates of each voxel of the patch: -1 and 1 are the region's outer voxels, the last axis x.

    Both patch and region are centred, so that in torch's coordinates the warp is one matrix and one shift.
    """
    half_patch, half_region = (np.maximum((np.array(shape) - 1) / 2, 0.5) for shape in (size, region))
    matrix = warp * half_patch[None, :] / half_region[:, None]
    shift = centre / half_region - (np.array(region) - 1) / 2 / half_region
    theta = np.concatenate([matrix[::-1, ::-1], shift[::-1, None]], axis=1)
    return F.affine_grid(torch.from_numpy(theta).float()[None], [1, 1, *size], align_corners=True)


def _sample(
    region: Float32[np.ndarray, "x y z"], grid: Float32[Tensor, "1 i j k 3"], mode: str
) -> Float32[np.ndarray, "i j k"]:
    sampled = F.grid_sample(
        torch.from_numpy(region)[None, None], grid, mode=mode, padding_mode="border", align_corners=True
    )
    return np.asarray(sampled[0, 0].numpy())


def add_noise(
    image: Float32[np.ndarray, "x y z"], generator: np.random.Generator, *, max_std: float
) -> Float32[np.ndarray, "x y z"]:
    """Add white noise of a random strength."""
    std = np.float32(generator.uniform(0.0, max_std))
    return np.asarray(image + std * generator.standard_normal(image.shape, dtype=np.float32))


def blur(
    image: Float32[np.ndarray, "x y z"], generator: np.random.Generator, *, sigma_voxels: tuple[float, float]
) -> Float32[np.ndarray, "x y z"]:
    """Smooth with a Gaussian of a random width."""
    return np.asarray(gaussian_filter(image, generator.uniform(*sigma_voxels), truncate=3.0))


def shift_brightness(
    image: Float32[np.ndarray, "x y z"], generator: np.random.Generator, *, max_shift: float
) -> Float32[np.ndarray, "x y z"]:
    """Make everything brighter or darker by the same."""
    return image + np.float32(generator.uniform(-max_shift, max_shift))


def stretch_contrast(
    image: Float32[np.ndarray, "x y z"], generator: np.random.Generator, *, factor_range: tuple[float, float]
) -> Float32[np.ndarray, "x y z"]:
    """Stretch or squeeze the intensities about the patch's mean."""
    mean = image.mean()
    return np.asarray(mean + np.float32(generator.uniform(*factor_range)) * (image - mean))


def bend_gamma(
    image: Float32[np.ndarray, "x y z"], generator: np.random.Generator, *, gamma_range: tuple[float, float]
) -> Float32[np.ndarray, "x y z"]:
    """Raise the intensities, as shares of the window, to a random power: its ends stay, its middle moves."""
    share = np.clip((image + 1.0) / 2.0, 0.0, 1.0)
    return 2.0 * share ** np.float32(generator.uniform(*gamma_range)) - 1.0
