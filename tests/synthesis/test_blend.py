"""The blended edge: all of the lesion, nothing of it beyond `edge_mm`, ever less in between."""

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.synthesis.blend import blend, edge_weight

SPACING_MM = (0.7, 1.0, 2.5)
EDGE_MM = 4.0


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((23, 19, 13), dtype=bool)
    mask[9:14, 8:12, 5:8] = True
    mask[14, 9, 6] = True
    return mask


@pytest.fixture
def distance_mm(mask: np.ndarray) -> np.ndarray:
    inside = np.argwhere(mask) * SPACING_MM
    voxels = np.stack(np.indices(mask.shape), axis=-1).reshape(-1, 3) * SPACING_MM
    distances = [np.linalg.norm(inside - voxel, axis=1).min() for voxel in voxels]
    return np.array(distances).reshape(mask.shape)


def test_the_weight_is_one_inside_and_a_cosine_to_the_fourth_of_the_distance_outside(
    mask: np.ndarray, distance_mm: np.ndarray
) -> None:
    weight = edge_weight(mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
    assert (weight[mask] == 1).all()
    assert (weight[distance_mm >= EDGE_MM] == 0).all()
    outside = (distance_mm > 0) & (distance_mm < EDGE_MM)
    np.testing.assert_allclose(weight[outside], np.cos(np.pi / 2 * distance_mm[outside] / EDGE_MM) ** 4, atol=1e-9)
    order = np.argsort(distance_mm, axis=None)
    assert (np.diff(weight.ravel()[order]) <= 1e-9).all()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_beyond_the_edge_not_a_bit_changes(mask: np.ndarray, distance_mm: np.ndarray, dtype: type) -> None:
    generator = np.random.default_rng(0)
    scan = generator.normal(0, 300, mask.shape).astype(dtype)
    before = scan.copy()
    painted = generator.normal(500, 50, mask.shape).astype(np.float32)
    blended = blend(scan, painted, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
    assert np.array_equal(scan, before)
    assert blended.dtype == dtype
    far = distance_mm >= EDGE_MM
    assert blended[far].tobytes() == scan[far].tobytes()
    expected = np.rint(painted[mask]) if np.issubdtype(dtype, np.integer) else painted[mask]
    np.testing.assert_allclose(blended[mask], expected, rtol=1e-6)
    between = ~mask & ~far
    low, high = np.minimum(scan, painted)[between], np.maximum(scan, painted)[between]
    assert ((blended[between] >= low - 0.5) & (blended[between] <= high + 0.5)).all()


def test_integers_are_rounded_not_cut_and_stay_within_their_type() -> None:
    mask = np.ones((1, 1, 4), dtype=bool)
    painted = np.array([[[99.6, -99.6, 1e6, -1e6]]], dtype=np.float32)
    blended = blend(np.zeros((1, 1, 4), np.int16), painted, mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
    assert blended.tolist() == [[[100, -100, 32767, -32768]]]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_painting_what_is_there_changes_nothing(mask: np.ndarray, dtype: type) -> None:
    scan = np.random.default_rng(1).normal(0, 300, mask.shape).astype(dtype)
    blended = blend(scan, scan.astype(np.float32), mask, spacing_mm=SPACING_MM, edge_mm=EDGE_MM)
    assert blended.tobytes() == scan.tobytes()


def test_without_an_edge_voxel_in_reach_the_mask_alone_is_painted(mask: np.ndarray) -> None:
    scan = np.zeros(mask.shape, dtype=np.int16)
    painted = np.full(mask.shape, 7, dtype=np.float32)
    blended = blend(scan, painted, mask, spacing_mm=SPACING_MM, edge_mm=0.5)
    assert np.array_equal(blended == 7, mask)
    assert not (blended[~ndimage.binary_dilation(mask)]).any()
