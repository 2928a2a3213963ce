"""A painted lesion brought to what was asked of it, in HU: mean, rim, spread, mottling, and the scan's noise on it.

The network paints where a lesion is bright and dark; how much of that there is, it gets right on average and not in
each lesion, and it adds grain of its own. Both are measured as a real lesion's are (`appearance`), and scaled.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from promptlesion.data.lesion_appearance import depths_mm, outermost, pattern_bands

_ROUNDS = 3
_MOST_GAIN = 2.0 ** (1 / _ROUNDS)
"""Of anything painted, in each round: nothing becomes more than twice as strong, and of nothing nothing is made."""
_GRAIN_KEPT = 0.5
"""Power of what gives back the grain that goes where texture is weakened: in part it is the network's, not noise."""
_FEWEST_VOXELS = 12
_RIM_VOXELS = 1.3
"""How deep a rim that is made brighter or darker reaches, as an exponential."""
_LEAST_REACH = 0.1
"""How much deeper than the lesion as a whole its rim must be to tell: thin plaque is all rim."""
_BLOOM_VOXELS = 1.0
"""Deviation of the Gaussian by which what is changed inside goes on outside: a brighter lesion blooms more."""

Voxels = Float64[np.ndarray, " voxel"]


def match_moments(
    hu: Float32[np.ndarray, "x y z"],
    noise: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    asked: Mapping[str, float],
    *,
    spacing_mm: tuple[float, float, float],
) -> tuple[Float32[np.ndarray, "x y z"], float]:
    """Return a painted patch whose lesion is, with noise on it, as it was asked to be, and how much of the noise.

    The noise fills up what the painted grain lacks of the scan's below 0.75 mm. Then, in rounds, mottling and the
    texture down to 0.75 mm are scaled to the spreads asked for; the lesion's form, that is how it falls towards its
    edge and from one side to the other, to what is left of its spread; its rim is made as bright as asked, and all is
    shifted to the mean. Nothing becomes more than twice as strong. Outside the mask what is changed at the nearest
    voxel of the lesion fades away.

    Args:
        hu: as the network painted it, on the grid that training lesions were measured on.
        noise: of the scan, as strong as it is there, brought to that grid.
        mask: of the lesion.
        asked: of `ATTRIBUTES`; what is missing stays as it was painted.
        spacing_mm: of the grid.

    Returns:
        The patch, without the noise, and the factor of the noise to be put on it.
    """
    if not asked or mask.sum() < _FEWEST_VOXELS:
        return hu, 1.0
    grain, noise_grain = (pattern_bands(part, mask, spacing_mm)[2].std() for part in (hu, noise))
    share = max(0.0, 1.0 - float(grain / max(noise_grain, 1e-6)) ** 2) ** 0.5
    before = hu + np.float32(share) * noise
    painted = before.astype(np.float64)
    asked = {**asked, "noise_hu": float(pattern_bands(before, mask, spacing_mm)[2].std())}
    for _ in range(_ROUNDS):  # each changes what the others are measured by
        painted[mask] = _nearer(painted, mask, asked, spacing_mm)
    return _with_bloom(hu, painted[mask] - before[mask], mask), share


def shifted_to(
    hu: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], mean_hu: float
) -> Float32[np.ndarray, "x y z"]:
    """Return a box whose masked voxels have a mean."""
    return _with_bloom(hu, np.full(int(mask.sum()), mean_hu - hu[mask].mean(dtype=np.float64)), mask)


def _nearer(
    hu: Float64[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    asked: Mapping[str, float],
    spacing_mm: tuple[float, float, float],
) -> Voxels:
    """Return the lesion's voxels with texture, form, rim and mean scaled once to what is asked."""
    low, middle, grain = pattern_bands(hu, mask, spacing_mm)
    form = hu[mask] - low - middle - grain
    nothing = np.zeros(len(form))
    low = low * _gain(low, nothing, asked.get("low_frequency_hu"))
    middle = middle * _gain(middle, nothing, asked.get("mid_frequency_hu"))
    grain = grain * _gain(grain, nothing, asked["noise_hu"]) ** _GRAIN_KEPT
    texture = low + middle + grain
    changed = form * _gain(form, texture, asked.get("std_hu")) + texture
    if "outer_hu" in asked and "mean_hu" in asked:
        changed = changed + _rim(changed, mask, asked["outer_hu"] - asked["mean_hu"], spacing_mm)
    shifted: Voxels = changed + (asked.get("mean_hu", hu[mask].mean()) - changed.mean())
    return shifted


def _gain(part: Voxels, others: Voxels, wanted_hu: float | None) -> float:
    """Return by how much a part is to be stretched so that it and the others together have a standard deviation."""
    square, mixed = float(part.var()), float(((part - part.mean()) * (others - others.mean())).mean())
    if wanted_hu is None or square <= 0:
        return 1.0
    left = mixed**2 - square * (float(others.var()) - wanted_hu**2)
    return float(np.clip((max(left, 0.0) ** 0.5 - mixed) / square, 0.0, _MOST_GAIN))


def _rim(
    values: Voxels, mask: Bool[np.ndarray, "x y z"], wanted_hu: float, spacing_mm: tuple[float, float, float]
) -> Voxels:
    """Return what brings the mean of the outer 0.6 mm, less that of the whole lesion, to what is wanted."""
    depth_mm = depths_mm(mask, spacing_mm)
    is_outer = outermost(depth_mm, mask)[mask]
    ramp = np.exp(-ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1][mask] / _RIM_VOXELS)
    reach = float(ramp[is_outer].mean() - ramp.mean())
    present = float(values[is_outer].mean() - values.mean())
    rim: Voxels = ramp * ((wanted_hu - present) / reach if reach > _LEAST_REACH else 0.0)
    return rim


def _with_bloom(
    hu: Float32[np.ndarray, "x y z"], added: Voxels, mask: Bool[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "x y z"]:
    """Return a box with something added to the masked voxels, and ever less of it to those beside them."""
    change = np.zeros(hu.shape)
    change[mask] = added
    distance, nearest = ndimage.distance_transform_edt(~mask, return_indices=True)
    changed: np.ndarray = hu + change[tuple(nearest)] * np.exp(-0.5 * (distance / _BLOOM_VOXELS) ** 2)
    return changed.astype(np.float32)
