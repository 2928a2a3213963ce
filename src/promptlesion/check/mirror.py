"""Does a label map lie on its own scan, or on the scan's mirror image?"""

from itertools import combinations

import numpy as np
from jaxtyping import Num, UInt8

AXIS_SETS = tuple(axes for number in (1, 2, 3) for axes in combinations(range(3), number))
"""The seven ways to mirror an array."""
AXIS_NAMES = ("left-right", "front-back", "head-foot")
_MOST_VOXELS_AN_AXIS = 128
_CLIPPED_HU = (-1000.0, 400.0)
_STRONGEST_EDGE_HU = 300.0
_SMALLEST_GAIN = 1.6
"""Measured: of 100 right label maps, real and phantom, the best mirroring gains at most 0.6."""


def named_axes(axes: tuple[int, ...]) -> str:
    """Name the directions of mirrored axes of a RAS+ array."""
    return " and ".join(AXIS_NAMES[axis] for axis in axes)


def mirrored_axes(image: Num[np.ndarray, "x y z"], labels: UInt8[np.ndarray, "x y z"]) -> tuple[int, ...]:
    """Return along which axes the label map must be mirrored to fit the scan; none where it fits as it is.

    A label map fits where its outlines run along edges of the scan and its structures are even inside. A mirrored one
    must do better in both, by far; a map as symmetric as the body itself is left alone.
    """
    step = tuple(slice(None, None, -(-length // _MOST_VOXELS_AN_AXIS)) for length in image.shape)
    hu = np.clip(image[step].astype(np.float32), *_CLIPPED_HU)
    found = labels[step]
    if not found.any():
        return ()
    strength, spread = _fit(hu, found)
    best: tuple[float, tuple[int, ...]] = (_SMALLEST_GAIN, ())
    for axes in AXIS_SETS:
        mirrored_strength, mirrored_spread = _fit(hu, np.flip(found, axes))
        is_better_in_both = mirrored_strength > strength and mirrored_spread < spread
        gain = (mirrored_strength / max(strength, 1.0)) * (spread / max(mirrored_spread, 1.0))
        if is_better_in_both and gain > best[0]:
            best = (gain, axes)
    return best[1]


def _fit(hu: Num[np.ndarray, "x y z"], labels: UInt8[np.ndarray, "x y z"]) -> tuple[float, float]:
    """Return the mean step in HU across the outlines, and the standard deviation inside the labels."""
    total, number = 0.0, 0
    for axis in range(3):
        is_outline = np.diff(labels.astype(np.int16), axis=axis) != 0
        steps = np.abs(np.diff(hu, axis=axis)[is_outline])
        total += float(np.minimum(steps, _STRONGEST_EDGE_HU).sum())
        number += steps.size
    is_labelled = labels > 0
    value, inside = labels[is_labelled].astype(np.int64), hu[is_labelled].astype(np.float64)
    count = np.bincount(value)
    mean = np.bincount(value, weights=inside) / np.maximum(count, 1)
    return total / max(number, 1), float(np.sqrt(np.square(inside - mean[value]).mean()))
