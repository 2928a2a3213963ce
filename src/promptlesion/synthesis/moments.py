"""A painted lesion brought to what was asked of it: mean, spread and mottling, in HU, and what is beside it along."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from promptlesion.data.lesion_appearance import mottling

_MOST_GAIN = 2.0
"""Of spread and mottling, either way: of what the network left flat nothing is to be made."""
_FEWEST_VOXELS = 12
_BLOOM_MM = 0.6
"""Deviation of the Gaussian by which what is changed inside goes on outside: a brighter lesion blooms more."""


def match_moments(
    hu: Float32[np.ndarray, "x y z"],
    noise: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    asked: Mapping[str, float],
    *,
    spacing_mm: tuple[float, float, float],
) -> Float32[np.ndarray, "x y z"]:
    """Return a painted box with noise on it, whose lesion has the mean, spread and mottling that were asked for.

    The mottling, which is coarser than 1.5 mm, is made stronger or weaker until it is as strong as asked; all else that
    the network painted, the fall towards the edge above all, until mottling, noise and it have the spread asked for.
    Neither is more than doubled or halved. The noise stays as it is. Outside the mask what is changed at the nearest
    voxel of the lesion fades away.

    Args:
        hu: as the network painted it, without noise.
        noise: to be added.
        mask: of the lesion.
        asked: `mean_hu`, `std_hu` and `low_frequency_hu`; what is missing stays as it was painted.
    """
    inside = hu[mask].astype(np.float64)
    drawn = noise[mask].astype(np.float64)
    changed = inside.copy()
    if len(inside) >= _FEWEST_VOXELS:
        low = np.zeros(len(inside)) if "low_frequency_hu" not in asked else mottling(hu, mask, spacing_mm)
        stronger = low * _gain(asked.get("low_frequency_hu"), float(low.std()))
        rest = inside - low
        if "std_hu" in asked:
            middle = rest.mean()
            rest = middle + (rest - middle) * _spread_gain(rest - middle, stronger + drawn, asked["std_hu"])
        changed = rest + stronger
    if "mean_hu" in asked:
        changed += asked["mean_hu"] - (changed + drawn).mean()
    added = np.zeros(hu.shape)
    added[mask] = changed - inside
    distance_mm, nearest = ndimage.distance_transform_edt(~mask, sampling=spacing_mm, return_indices=True)
    matched: np.ndarray = hu + noise + added[tuple(nearest)] * np.exp(-0.5 * (distance_mm / _BLOOM_MM) ** 2)
    return matched.astype(np.float32)


def _gain(wanted: float | None, present: float) -> float:
    if wanted is None or present <= 0:
        return 1.0
    return min(max(wanted / present, 1 / _MOST_GAIN), _MOST_GAIN)


def _spread_gain(part: Float64[np.ndarray, " voxel"], others: Float64[np.ndarray, " voxel"], wanted_hu: float) -> float:
    """Return by how much a part is to be stretched so that it and the others together have a standard deviation."""
    square, mixed = float(part.var()), float((part * (others - others.mean())).mean())
    if square <= 0:
        return 1.0
    left = mixed**2 - square * (float(others.var()) - wanted_hu**2)
    gain = float((max(left, 0.0) ** 0.5 - mixed) / square)
    return min(max(gain, 1 / _MOST_GAIN), _MOST_GAIN)
