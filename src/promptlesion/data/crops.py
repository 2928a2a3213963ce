"""Cutting patches out of volumes and putting them back, also where they reach beyond the edge."""

import numpy as np
from jaxtyping import Shaped


def centered_start(center: tuple[int, int, int], size: tuple[int, int, int]) -> tuple[int, int, int]:
    """The first voxel of a patch of `size` in which `center` is voxel `size // 2`."""
    x, y, z = (middle - length // 2 for middle, length in zip(center, size, strict=True))
    return x, y, z


def crop(
    array: Shaped[np.ndarray, "x y z"],
    start: tuple[int, int, int],
    size: tuple[int, int, int],
    fill: float | int,
) -> Shaped[np.ndarray, "i j k"]:
    """A copy of the patch of `size` that begins at `start`, with `fill` where it leaves the array."""
    inside, in_patch = _overlap(array.shape, start, size)
    patch = np.full(size, fill, dtype=array.dtype)
    patch[in_patch] = array[inside]
    return patch


def put_back(
    array: Shaped[np.ndarray, "x y z"], start: tuple[int, int, int], patch: Shaped[np.ndarray, "i j k"]
) -> None:
    """Write `patch` into `array` in place, beginning at `start`; what lies outside the array is dropped."""
    inside, in_patch = _overlap(array.shape, start, patch.shape)
    array[inside] = patch[in_patch]


def _overlap(
    shape: tuple[int, ...], start: tuple[int, ...], size: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    inside, in_patch = [], []
    for length, first, extent in zip(shape, start, size, strict=True):
        low, high = min(max(first, 0), length), max(min(first + extent, length), 0)
        high = max(low, high)
        inside.append(slice(low, high))
        offset = min(max(low - first, 0), extent)
        in_patch.append(slice(offset, offset + high - low))
    return tuple(inside), tuple(in_patch)
