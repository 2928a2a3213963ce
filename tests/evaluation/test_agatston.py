"""The Agatston score by hand: area times density, slice by slice, in millimetres."""

import numpy as np
import pytest

from promptlesion.evaluation.agatston import plaque_burden

SPACING_MM = (0.5, 0.8, 1.5)


def _block(peak_hu: float, sides: tuple[int, int, int] = (4, 5, 3)) -> tuple[np.ndarray, np.ndarray]:
    """A block of plaque; one slice of it holds 4 x 5 voxels of 0.4 mm2, 8 mm2."""
    mask = np.zeros((12, 14, 9), dtype=bool)
    mask[2 : 2 + sides[0], 3 : 3 + sides[1], 2 : 2 + sides[2]] = True
    return np.where(mask, np.float32(peak_hu), np.float32(300)), mask


@pytest.mark.parametrize(
    ("peak_hu", "weight"), [(129, 0), (130, 1), (199, 1), (200, 2), (299, 2), (300, 3), (399, 3), (400, 4), (2000, 4)]
)
def test_area_times_weight_times_the_slices_share_of_3_mm(peak_hu: float, weight: int) -> None:
    burden = plaque_burden(*_block(peak_hu), SPACING_MM)
    assert burden.agatston == pytest.approx(3 * 8.0 * weight * 1.5 / 3)
    assert burden.volume_mm3 == pytest.approx(60 * 0.6)
    assert burden.calcium_mm3 == pytest.approx(60 * 0.6 if weight else 0)


def test_the_peak_of_each_region_and_slice_counts() -> None:
    hu, mask = _block(150)
    hu[2, 3, 2] = 450  # one voxel of the first slice lifts the slice's whole area
    assert plaque_burden(hu, mask, SPACING_MM).agatston == pytest.approx(8.0 * (4 + 1 + 1) / 2)
    mask[8:12, 10:13] = mask[2:6, 3:6]
    hu = np.where(mask, hu, np.float32(0))
    hu[8:12, 10:13, 2:5] = 250  # a region of its own, 4.8 mm2 a slice
    assert plaque_burden(hu, mask, SPACING_MM).agatston == pytest.approx((8.0 * 6 + 4.8 * 2 * 3) / 2)


def test_specks_below_1_mm2_do_not_count() -> None:
    hu, mask = _block(500, (1, 2, 1))  # 0.8 mm2
    assert plaque_burden(hu, mask, SPACING_MM).agatston == 0
    assert plaque_burden(hu, mask, (0.5, 1.0, 3.0)).agatston == pytest.approx(4.0)  # exactly 1 mm2


def test_what_lies_outside_the_mask_does_not_count() -> None:
    hu, mask = _block(250)
    assert plaque_burden(hu, np.zeros_like(mask), SPACING_MM).agatston == 0
    bright = np.where(mask, hu, np.float32(3000))
    assert plaque_burden(bright, mask, SPACING_MM) == plaque_burden(hu, mask, SPACING_MM)


def test_slices_in_thirds_give_the_same_score() -> None:
    hu, mask = _block(350)
    thin = plaque_burden(np.repeat(hu, 3, axis=2), np.repeat(mask, 3, axis=2), (0.5, 0.8, 0.5))
    assert thin.agatston == pytest.approx(plaque_burden(hu, mask, SPACING_MM).agatston)
