"""What a lesion looks like, in figures: how bright, how sharp its edge, how mottled and how noisy it is, and its halo.

Depths are signed distances to the mask's surface in mm, above 0 inside: a voxel that touches the surface lies half a
voxel deep.
"""

import numpy as np
from jaxtyping import Bool, Float64, Num
from scipy import ndimage

from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.lesion_texture import lesion_texture

OUTER_MM = 0.6
_CORE_SHARE = 2 / 3
_SHELL_MM = (1.2, 2.4, 4.8)
"""The halo reaches to the first; between the others lies what the lesion is compared with."""
_COARSE_MM, _FINE_MM = 1.5, 0.75
_BRIGHT_HU = 300.0
_LEAST_VOXELS = 12
PROFILE_MM = tuple(round(-3.3 + 0.6 * index, 1) for index in range(12))
"""Depths of the profile across the edge, the middle of each bin of 0.6 mm."""

UNITS = {
    "mean_hu": "HU",
    "std_hu": "HU",
    "outer_hu": "HU",
    "core_hu": "HU",
    "contrast_hu": "HU",
    "edge_hu_per_mm": "HU/mm",
    "halo_hu": "HU",
    "low_frequency_hu": "HU",
    "mid_frequency_hu": "HU",
    "noise_hu": "HU",
    "grain": "",
    "share_above_300": "",
    "diameter_mm": "mm",
}
"""What is measured, with its unit; `appearance` says what each is."""


def appearance(
    hu: Num[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> dict[str, float]:
    """Measure one lesion; what it is too small for, or lacks surroundings for, is NaN.

    - `mean_hu`, `std_hu`: over the mask; `share_above_300`: of its voxels.
    - `outer_hu`: mean of the outer 0.6 mm, at least of the voxels that touch the surface; `core_hu`: of the deepest
      third of the voxels.
    - `contrast_hu`: mean less that of the surroundings, 2.4 to 4.8 mm off; `halo_hu`: that of the nearest 1.2 mm less
      that of these surroundings, which a real lesion has too, as a scanner blurs.
    - `edge_hu_per_mm`: slope across the surface, from 1.2 mm outside to 1.2 mm inside.
    - `low_frequency_hu`, `mid_frequency_hu`, `noise_hu`: spread of the texture (`lesion_texture`, so less what depth
      and a slope explain) above 1.5 mm, between 1.5 and 0.75 mm, and below; `grain`: correlation of neighbours in it.
    - `diameter_mm`: of the sphere of equal volume.
    """
    hu, inside = _near(hu, mask, spacing_mm)
    depth_mm = depths_mm(inside, spacing_mm)
    near, from_mm, to_mm = _SHELL_MM
    around = _mean(hu, (depth_mm <= -from_mm) & (depth_mm >= -to_mm))
    mean_hu = _mean(hu, inside)
    texture = lesion_texture(hu, inside, spacing_mm)
    low, middle, high = _spreads(texture.pattern_hu, spacing_mm)
    grain = texture.neighbour_correlation
    return {
        "mean_hu": mean_hu,
        "std_hu": float(hu[inside].std()),
        "outer_hu": _mean(hu, outermost(depth_mm, inside)),
        "core_hu": _mean(hu, inside & (depth_mm >= np.quantile(depth_mm[inside], _CORE_SHARE))),
        "contrast_hu": mean_hu - around,
        "edge_hu_per_mm": _slope(hu, depth_mm, np.abs(depth_mm) <= near),
        "halo_hu": _mean(hu, ~inside & (depth_mm >= -near)) - around,
        "low_frequency_hu": low,
        "mid_frequency_hu": middle,
        "noise_hu": high,
        "grain": np.nan if grain is None else grain,
        "share_above_300": float((hu[inside] > _BRIGHT_HU).mean()),
        "diameter_mm": sphere_diameter_mm(int(inside.sum()) * float(np.prod(spacing_mm))),
    }


def pattern_bands(
    hu: Num[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> Float64[np.ndarray, "3 voxel"]:
    """Return the texture at every voxel of the mask, parted into above 1.5 mm, down to 0.75 mm, and below.

    Their spreads are `low_frequency_hu`, `mid_frequency_hu` and `noise_hu`.
    """
    pattern_hu = lesion_texture(hu, mask, spacing_mm).pattern_hu
    inside = np.pad(mask[ndimage.find_objects(mask.astype(np.uint8))[0]], 1)
    return np.stack([band[inside] for band in _bands(pattern_hu, inside, spacing_mm)])


def outermost(depth_mm: Float64[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Return which voxels of a mask are its outer 0.6 mm, or touch its surface where voxels are larger."""
    is_outer: np.ndarray = mask & (depth_mm <= max(OUTER_MM, float(depth_mm[mask].min()) + 1e-6))
    return is_outer


def edge_profile(
    hu: Num[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> Float64[np.ndarray, " depths"]:
    """Return the mean HU at every depth of `PROFILE_MM`, NaN where there is no voxel."""
    hu, inside = _near(hu, mask, spacing_mm)
    depth_mm = depths_mm(inside, spacing_mm)
    return np.array([_mean(hu, np.abs(depth_mm - middle) <= 0.3) for middle in PROFILE_MM])


def depths_mm(mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> Float64[np.ndarray, "x y z"]:
    """Return how deep every voxel lies in the mask; below 0 outside."""
    half = min(spacing_mm) / 2
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    depths: Float64[np.ndarray, "x y z"] = np.where(mask, inside - half, half - outside)
    return depths


def _near(
    hu: Num[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> tuple[Float64[np.ndarray, "i j k"], Bool[np.ndarray, "i j k"]]:
    """Cut out what is measured: the mask's box, and around it as far as the surroundings reach."""
    reach_mm = _SHELL_MM[-1] + min(spacing_mm) / 2
    x, y, z = (
        slice(max(0, side.start - int(np.ceil(reach_mm / mm))), side.stop + int(np.ceil(reach_mm / mm)))
        for side, mm in zip(ndimage.find_objects(mask.astype(np.uint8))[0], spacing_mm, strict=True)
    )
    return hu[x, y, z].astype(np.float64), mask[x, y, z]


def _mean(hu: Float64[np.ndarray, "x y z"], where: Bool[np.ndarray, "x y z"]) -> float:
    return float(hu[where].mean()) if where.any() else float("nan")


def _slope(
    hu: Float64[np.ndarray, "x y z"], depth_mm: Float64[np.ndarray, "x y z"], where: Bool[np.ndarray, "x y z"]
) -> float:
    """Fit a line through HU by depth."""
    depth = depth_mm[where]
    if len(depth) < _LEAST_VOXELS or np.ptp(depth) == 0:
        return float("nan")
    return float(np.polyfit(depth, hu[where], 1)[0])


def _spreads(
    pattern_hu: Float64[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return the spread of a pattern in its three bands; 0 is not part of it."""
    inside = pattern_hu != 0
    if inside.sum() < _LEAST_VOXELS:
        return (float("nan"),) * 3
    low, middle, high = (float(band[inside].std()) for band in _bands(pattern_hu, inside, spacing_mm))
    return low, middle, high


def _bands(
    pattern_hu: Float64[np.ndarray, "x y z"],
    inside: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> tuple[Float64[np.ndarray, "x y z"], Float64[np.ndarray, "x y z"], Float64[np.ndarray, "x y z"]]:
    """Part a pattern into three bands, coarse to fine."""
    coarse, fine = (_smoothed(pattern_hu, inside, spacing_mm, width) for width in (_COARSE_MM, _FINE_MM))
    return coarse, fine - coarse, pattern_hu - fine


def _smoothed(
    pattern_hu: Float64[np.ndarray, "x y z"],
    inside: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    width_mm: float,
) -> Float64[np.ndarray, "x y z"]:
    """Smooth by a Gaussian that sees the inside alone."""
    sigma = [width_mm / side for side in spacing_mm]
    weight = ndimage.gaussian_filter(inside.astype(np.float64), sigma, mode="constant")
    total = ndimage.gaussian_filter(pattern_hu, sigma, mode="constant")
    smoothed: Float64[np.ndarray, "x y z"] = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return smoothed
