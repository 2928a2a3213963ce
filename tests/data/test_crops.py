import itertools

import numpy as np
import pytest

from promptlesion.data.crops import centered_start, crop

SHAPE = (5, 7, 6)


def volume() -> np.ndarray:
    return np.random.default_rng(1).integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("size", [(3, 4, 2), (9, 10, 11), (1, 1, 1), (5, 7, 6)])
def test_a_crop_is_the_padded_array_there(size: tuple[int, int, int]) -> None:
    margin = 14
    padded = np.pad(volume(), margin, constant_values=-1024)
    for start in itertools.product((-12, -2, 0, 3, 8), (-11, 0, 2, 7), (-1, 0, 5, 13)):
        expected = padded[tuple(slice(s + margin, s + margin + n) for s, n in zip(start, size, strict=True))]
        expected = np.pad(
            expected,
            [(0, n - m) for n, m in zip(size, expected.shape, strict=True)],
            constant_values=-1024,
        )
        patch = crop(volume(), start, size, -1024)
        assert patch.dtype == np.int16
        np.testing.assert_array_equal(patch, expected)


def test_a_crop_is_a_copy() -> None:
    array = volume()
    crop(array, (0, 0, 0), SHAPE, 0)[:] = 0
    np.testing.assert_array_equal(array, volume())


def test_the_center_is_voxel_half_the_size() -> None:
    array, center = volume(), (2, 5, 3)
    for size in ((4, 4, 4), (5, 3, 7), (1, 2, 8)):
        patch = crop(array, centered_start(center, size), size, 0)
        assert patch[tuple(length // 2 for length in size)] == array[center]
