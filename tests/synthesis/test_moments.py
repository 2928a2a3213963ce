import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.lesion_appearance import appearance
from promptlesion.synthesis.moments import match_moments, shifted_to

SPACING = (0.6, 0.6, 0.6)


def painted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mottled ball of 9 mm, darker to its edge, noise like a scan's, and the ball's mask."""
    generator = np.random.default_rng(0)
    grid = np.indices((31, 31, 31)) - 15
    radius = np.sqrt((grid**2).sum(axis=0))
    mask = radius <= 7.5
    mottled = ndimage.gaussian_filter(generator.standard_normal(mask.shape), 2.5)
    noise = generator.normal(0, 8, mask.shape).astype(np.float32)
    hu = 60 + 25 * mottled / mottled.std() - 2.0 * radius
    return hu.astype(np.float32), noise, mask


def brought(hu: np.ndarray, noise: np.ndarray, mask: np.ndarray, asked: dict[str, float]) -> np.ndarray:
    """The patch as it goes into the scan, noise on it."""
    patch, share = match_moments(hu, noise, mask, asked, spacing_mm=SPACING)
    return patch + np.float32(share) * noise


def test_mean_spread_and_mottling_are_as_asked() -> None:
    hu, noise, mask = painted()
    hu -= 6.0 * np.indices(hu.shape)[0].astype(np.float32)  # bright on one side
    asked = {"mean_hu": 31.0, "std_hu": 24.0, "low_frequency_hu": 4.5}
    before = appearance(hu + noise, mask, SPACING)
    assert before["low_frequency_hu"] > 6.5
    after = appearance(brought(hu, noise, mask, asked), mask, SPACING)
    assert after["mean_hu"] == pytest.approx(31.0, abs=0.01)
    assert after["std_hu"] == pytest.approx(24.0, rel=0.02)
    assert after["low_frequency_hu"] == pytest.approx(4.5, rel=0.3)
    assert after["noise_hu"] == pytest.approx(appearance(noise, mask, SPACING)["noise_hu"], rel=0.1)


def test_what_was_left_open_stays_and_the_noise_is_put_on() -> None:
    hu, noise, mask = painted()
    np.testing.assert_allclose(brought(hu, noise, mask, {}), hu + noise, atol=1e-4)


def test_what_is_changed_inside_fades_outside() -> None:
    hu, noise, mask = painted()
    matched = brought(hu, 0 * noise, mask, {"mean_hu": float(hu[mask].mean()) + 100}) - hu
    distance_mm = ndimage.distance_transform_edt(~mask, sampling=SPACING)
    np.testing.assert_allclose(matched[mask], 100, atol=0.01)
    near, far = matched[(distance_mm > 0) & (distance_mm < 0.7)], matched[distance_mm > 2.4]
    assert 50 < near.mean() < 70
    assert np.abs(far).max() < 0.1


def test_a_flat_lesion_gets_no_spread_from_nothing() -> None:
    hu, noise, mask = painted()
    flat = np.full_like(hu, 50.0)
    matched = brought(flat, 0 * noise, mask, {"mean_hu": 70.0, "std_hu": 30.0})
    np.testing.assert_allclose(matched[mask], 70.0, atol=1e-3)


def test_the_rim_is_as_bright_as_asked() -> None:
    hu, noise, mask = painted()
    for outer_hu in (20.0, 70.0):
        asked = {"mean_hu": 45.0, "std_hu": 20.0, "outer_hu": outer_hu}
        after = appearance(brought(hu, noise, mask, asked), mask, SPACING)
        assert after["mean_hu"] == pytest.approx(45.0, abs=0.01)
        assert after["outer_hu"] == pytest.approx(outer_hu, abs=1.0)


def test_painted_grain_takes_the_place_of_noise() -> None:
    hu, noise, mask = painted()
    grainy = hu + np.random.default_rng(1).normal(0, 6, hu.shape).astype(np.float32)
    alone, both = (
        appearance(brought(shown, noise, mask, {"mean_hu": 50.0}), mask, SPACING)["noise_hu"] for shown in (hu, grainy)
    )
    assert both == pytest.approx(alone, rel=0.05)


def test_nothing_is_more_than_doubled() -> None:
    hu, noise, mask = painted()
    matched = brought(hu, 0 * noise, mask, {"std_hu": 500.0})
    assert float(matched[mask].std()) <= 2 * float(hu[mask].std())


def test_of_a_few_voxels_the_mean_alone_is_matched() -> None:
    hu, noise, _ = painted()
    mask = np.zeros(hu.shape, dtype=bool)
    mask[15, 15, 14:17] = True
    assert np.array_equal(brought(hu, noise, mask, {"mean_hu": 200.0, "std_hu": 50.0}), hu + noise)
    matched = shifted_to(hu + noise, mask, 200.0)
    assert float(matched[mask].mean()) == pytest.approx(200.0, abs=0.01)


def test_thin_plaque_that_is_all_rim_gets_no_rim() -> None:
    hu, noise, _ = painted()
    mask = np.zeros(hu.shape, dtype=bool)
    mask[8:22, 10:20, 15:17] = True
    asked = {"mean_hu": 600.0, "std_hu": 60.0, "outer_hu": 560.0}
    assert float(brought(hu, noise, mask, asked)[mask].std()) < 60
