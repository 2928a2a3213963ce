"""How one lesion looks: closed forms on made-up lesions, and that only what lies near it counts."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.lesion_appearance import PROFILE_MM, UNITS, appearance, edge_profile

SPACING_MM = (0.5, 0.6, 0.4)
RADIUS_MM = 5.0


def ball(
    inside_hu: float = 100.0, *, blur_mm: float = 0.0, noise_hu: float = 0.0, grain_mm: float = 0.0
) -> tuple[Any, Any, tuple[float, float, float]]:
    """A ball of 5 mm in surroundings of 40 HU, with an edge as blurred and a noise as coarse as asked for."""
    shape = (44, 38, 54)
    positions = [(np.arange(n) - n / 2 + 0.5) * side for n, side in zip(shape, SPACING_MM, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*positions, indexing="ij")))
    mask = distance <= RADIUS_MM
    hu = np.where(mask, inside_hu, 40.0)
    if blur_mm:
        hu = ndimage.gaussian_filter(hu, [blur_mm / side for side in SPACING_MM])
    noise = np.random.default_rng(0).normal(size=shape)
    if grain_mm:
        noise = ndimage.gaussian_filter(noise, [grain_mm / side for side in SPACING_MM])
    hu = hu + noise_hu * noise / noise.std()
    return hu.astype(np.float32), mask, SPACING_MM


def test_a_sharp_ball_is_what_it_is() -> None:
    found = appearance(*ball())
    assert set(found) == set(UNITS)
    assert found["mean_hu"] == found["outer_hu"] == found["core_hu"] == pytest.approx(100)
    assert found["contrast_hu"] == pytest.approx(60)
    assert (found["std_hu"], found["halo_hu"], found["share_above_300"]) == (0, 0, 0)
    assert found["diameter_mm"] == pytest.approx(2 * RADIUS_MM, rel=0.02)
    assert found["low_frequency_hu"] == pytest.approx(0, abs=1e-6) or np.isnan(found["low_frequency_hu"])


def test_a_blurred_edge_fades_and_has_a_halo() -> None:
    sharp, blurred = appearance(*ball()), appearance(*ball(blur_mm=0.8))
    assert 60 < blurred["outer_hu"] < 90
    assert blurred["core_hu"] == pytest.approx(100, abs=1)
    assert 3 < blurred["halo_hu"] < 25
    assert 0 < blurred["edge_hu_per_mm"] < sharp["edge_hu_per_mm"]
    assert appearance(*ball(-20.0, blur_mm=0.8))["edge_hu_per_mm"] < 0


def test_noise_and_mottling_lie_in_their_bands() -> None:
    fine, coarse = appearance(*ball(noise_hu=10)), appearance(*ball(noise_hu=10, grain_mm=2.0))
    assert fine["noise_hu"] == pytest.approx(10, rel=0.1)
    assert fine["low_frequency_hu"] < 1.5
    assert coarse["noise_hu"] < 2
    assert coarse["low_frequency_hu"] > coarse["mid_frequency_hu"]
    assert abs(fine["grain"]) < 0.1 < 0.8 < coarse["grain"]


def test_the_profile_is_flat_but_for_the_edge() -> None:
    profile, depths = edge_profile(*ball()), np.array(PROFILE_MM)
    assert profile[depths > 0.35] == pytest.approx(100)
    assert profile[depths < -0.35] == pytest.approx(40)


def test_what_lies_further_off_does_not_count() -> None:
    hu, mask, spacing_mm = ball(blur_mm=0.8, noise_hu=10)
    wide = np.pad(hu, ((9, 4), (7, 12), (3, 8)), constant_values=3000)
    padded = np.pad(mask, ((9, 4), (7, 12), (3, 8)))
    assert appearance(wide, padded, spacing_mm) == appearance(hu, mask, spacing_mm)
    np.testing.assert_array_equal(edge_profile(wide, padded, spacing_mm), edge_profile(hu, mask, spacing_mm))
