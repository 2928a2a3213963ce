"""Cutting patches out of volumes, also where they reach beyond the edge."""

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
    low = np.clip(start, 0, array.shape)
    high = np.clip(np.add(start, size), low, array.shape)
    patch = np.full(size, fill, dtype=array.dtype)
    patch[tuple(map(slice, low - start, high - start))] = array[tuple(map(slice, low, high))]
    return patch
