"""The noise that comes back is the scan's; its anatomy does not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.synthesis.drawing import LesionDrawing
from promptlesion.synthesis.placement import place_lesion
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer
from promptlesion.synthesis.texture import lost_noise

SHAPE = (37, 31, 23)
SIGMA = (2.0, 2.0, 1.5)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, SHAPE).astype(np.float32)


def test_noise_that_the_autoencoder_dropped_comes_back(noise: np.ndarray) -> None:
    smooth = (60 + 30 * np.sin(np.indices(SHAPE)[0] / 9)).astype(np.float32)
    found = lost_noise(np.rint(smooth + noise).astype(np.int16), smooth, sigma_voxels=SIGMA)
    assert found.std() == pytest.approx(20, rel=0.1)
    assert np.corrcoef(found.ravel(), noise.ravel())[0, 1] > 0.95


def test_of_anatomy_that_the_autoencoder_dropped_little_does(noise: np.ndarray) -> None:
    """A vessel of 300 HU, and an organ the autoencoder shows 80 HU too dark."""
    x, y, _ = np.indices(SHAPE)
    vessel = np.where(np.hypot(x - 18, y - 15) < 1.5, 300, 0)
    organ = np.where(x > 9, 80, 0)
    found = lost_noise(noise + vessel + organ, np.zeros(SHAPE, np.float32), sigma_voxels=SIGMA)
    assert np.abs(found).max() < 4 * 20
    assert found.std() < 1.5 * 20
    inside = x > 9 + 3 * SIGMA[0]
    assert abs(found[inside & (vessel == 0)].mean()) < 5


def test_what_is_kept_exactly_or_has_no_noise_gives_nothing(noise: np.ndarray) -> None:
    assert not lost_noise(noise, noise, sigma_voxels=SIGMA).any()
    step = np.where(np.indices(SHAPE)[0] > 30, 500.0, 0.0)
    assert not lost_noise(step, np.zeros(SHAPE, np.float32), sigma_voxels=(0.5, 0.5, 0.5)).any()


def test_a_painted_lesion_has_the_scans_noise_where_asked_for(
    synthesizer: PromptLesionSynthesizer, scans: Dataset, drawing: LesionDrawing
) -> None:
    image, labels = read_case(scans, scans.case("lps"))
    options = {"edge_mm": synthesizer.edge_mm, "max_extent_mm": synthesizer.max_extent_mm}
    generator = np.random.default_rng(0)
    lesion = place_lesion(labels, scans, 0, drawing=drawing, generator=generator, **options)
    without = replace(synthesizer, config=synthesizer.config.model_copy(update={"keep_noise": False}))
    noisy, smooth = (painter.paint(image, [lesion], types=[0], seeds=[3])[0] for painter in (synthesizer, without))
    added, scan = noisy - smooth, image.array[lesion.box].astype(np.float32)
    fine = scan - ndimage.gaussian_filter(scan, 1.0)
    assert 5 < added[lesion.mask].std() < 30  # of the scan's 20 HU
    assert np.corrcoef(added[lesion.mask], fine[lesion.mask])[0, 1] > 0.6  # this autoencoder makes noise of its own
