"""The noise of a scan is told, and a lesion freed of it keeps its mean and its edges."""

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.intensity import HUWindow
from promptlesion.data.noise import blur_mm, denoise, noise_hu, robust_sigma

WINDOW = HUWindow(-200.0, 1300.0)
SHAPE = (30, 26, 34)


@pytest.fixture
def organ() -> np.ndarray:
    """An organ of 110 HU with a tumour of 50 HU that varies slowly, and air beside it."""
    x, y, z = np.indices(SHAPE)
    clean = np.full(SHAPE, 110.0, np.float32)
    tumour = np.hypot(np.hypot(x - 13, y - 12), z - 16) < 8
    clean[tumour] = (50 + 12 * np.sin(x / 3))[tumour]
    clean[x < 3] = -1000
    return clean


@pytest.fixture
def tumour() -> np.ndarray:
    x, y, z = np.indices(SHAPE)
    inside: np.ndarray = np.hypot(np.hypot(x - 13, y - 12), z - 16) < 8
    return inside


def noisy(clean: np.ndarray, sigma_hu: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma_hu, clean.shape)
    return np.rint(clean + noise).astype(np.int16)


def test_the_robust_sigma_is_the_standard_deviation_of_a_normal_distribution_and_forgets_outliers() -> None:
    values = np.random.default_rng(0).normal(5, 20, 20_000)
    assert robust_sigma(values) == pytest.approx(20, rel=0.03)
    values[::50] = 3000
    assert robust_sigma(values) == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("sigma_hu", [10.0, 20.0, 40.0])
def test_the_noise_is_what_a_gaussian_takes_away(organ: np.ndarray, sigma_hu: float) -> None:
    """Of white noise that is 1 - 2 k(0) + sum k^2 of the variance, k the kernel: 0.945 of sigma; edges add little."""
    impulse = np.zeros((17, 17, 17))
    impulse[8, 8, 8] = 1
    kernel = ndimage.gaussian_filter(impulse, 1.0)
    share = np.sqrt(1 - 2 * kernel[8, 8, 8] + (kernel**2).sum())
    inside = noisy(organ, sigma_hu)[4:]  # away from the air, whose edge is no noise
    assert noise_hu(inside, window=WINDOW) == pytest.approx(share * sigma_hu, rel=0.15)


def test_air_alone_has_no_noise_and_stays() -> None:
    air = np.full(SHAPE, -1000, np.int16)
    assert noise_hu(air, window=WINDOW) == 0
    assert (denoise(air, np.ones(SHAPE, bool), window=WINDOW) == WINDOW.low).all()


@pytest.mark.parametrize("sigma_hu", [10.0, 20.0])
def test_a_tumour_comes_nearer_to_what_it_is_without_noise(
    organ: np.ndarray, tumour: np.ndarray, sigma_hu: float
) -> None:
    scan = noisy(organ, sigma_hu)
    freed = denoise(scan, tumour, window=WINDOW)
    before, after = ((image.astype(float) - organ)[tumour] for image in (scan, freed))
    assert after.std() < 0.6 * before.std()
    assert abs(after.mean()) < 0.2 * sigma_hu
    assert np.corrcoef(freed[tumour], organ[tumour])[0, 1] > np.corrcoef(scan[tumour], organ[tumour])[0, 1]


def test_the_edge_stays_where_it_is(organ: np.ndarray, tumour: np.ndarray) -> None:
    region = ndimage.binary_dilation(tumour, iterations=2)
    freed = denoise(noisy(organ, 10.0), region, window=WINDOW)
    rim = tumour & ~ndimage.binary_erosion(tumour)
    contrast_hu = 60
    assert abs(freed[rim].mean() - organ[rim].mean()) < 0.15 * contrast_hu
    shell = region & ~tumour
    assert abs(freed[shell].mean() - 110) < 0.15 * contrast_hu


def test_outside_the_region_nothing_but_the_window_changes(organ: np.ndarray, tumour: np.ndarray) -> None:
    scan = noisy(organ, 20.0)
    for region in (tumour, np.zeros(SHAPE, bool)):
        freed = denoise(scan, region, window=WINDOW)
        np.testing.assert_array_equal(freed[~region], scan[~region].clip(WINDOW.low, WINDOW.high))


@pytest.mark.parametrize("deviation_mm", [0.5, 0.8, 1.2])
def test_the_blur_of_edges_is_measured_along_each_axis(deviation_mm: float) -> None:
    generator, spacing_mm = np.random.default_rng(0), (0.6, 0.6, 1.2)
    organs = 400.0 * (ndimage.gaussian_filter(generator.standard_normal((70, 70, 40)), (12, 12, 6)) > 0)
    blurred = ndimage.gaussian_filter(organs, [deviation_mm / side for side in spacing_mm])
    scan = (blurred + generator.normal(0, 12, organs.shape)).round().astype(np.int16)
    x, y, z = blur_mm(scan, spacing_mm)
    assert x == pytest.approx(deviation_mm, rel=0.2) and y == pytest.approx(deviation_mm, rel=0.2)
    assert max(0.6, 0.8 * deviation_mm) <= z <= 1.3 * max(deviation_mm, 0.6)


def test_without_an_edge_the_blur_is_half_a_voxel() -> None:
    assert blur_mm(np.full((5, 6, 7), 40, np.int16), (0.5, 1.0, 3.0)) == (0.25, 0.5, 1.5)
    assert blur_mm(np.full((1, 1, 1), 40, np.int16), (0.5, 1.0, 3.0)) == (0.25, 0.5, 1.5)
