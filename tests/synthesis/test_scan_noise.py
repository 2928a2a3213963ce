"""The noise that comes back is like the scan's; its anatomy does not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.masks.placement import place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.scan_noise import draw_noise, lost_noise
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer

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


EVERYWHERE = (slice(None),) * 3


def test_drawn_noise_has_the_same_power_at_every_frequency_and_other_phases(noise: np.ndarray) -> None:
    streaky = ndimage.gaussian_filter(noise, (0.5, 2.0, 0.5))
    drawn = draw_noise(streaky, EVERYWHERE, generator=np.random.default_rng(1))
    power, drawn_power = (np.abs(np.fft.rfftn(field)) for field in (streaky, drawn))
    np.testing.assert_allclose(drawn_power / drawn_power.mean(), power / power.mean(), atol=1e-3)
    assert drawn.std() == pytest.approx(streaky.std(), rel=0.1)
    assert abs(np.corrcoef(drawn.ravel(), streaky.ravel())[0, 1]) < 0.1
    along = [np.corrcoef(np.roll(f, 1, axis=1).ravel(), f.ravel())[0, 1] for f in (streaky, drawn)]
    assert along[1] == pytest.approx(along[0], abs=0.05)
    assert np.array_equal(drawn, draw_noise(streaky, EVERYWHERE, generator=np.random.default_rng(1)))


def test_drawn_noise_is_as_strong_as_it_is_in_the_box(noise: np.ndarray) -> None:
    stronger = noise * np.where(np.indices(SHAPE)[0] < 18, 1, 3).astype(np.float32)
    for near, sigma in (
        ((slice(0, 15), slice(None), slice(None)), 20),
        ((slice(22, 37), slice(None), slice(None)), 60),
    ):
        drawn = draw_noise(stronger, near, generator=np.random.default_rng(1))
        assert drawn.std() == pytest.approx(sigma, rel=0.1)


def test_of_what_is_there_already_less_is_drawn(noise: np.ndarray) -> None:
    """Variances add up: 12 HU are there, 20 are wanted, 16 are drawn; of what is noisier none at all."""
    for present_hu, drawn_hu in ((0.0, 20), (12.0, 16), (25.0, 0)):
        drawn = draw_noise(noise, EVERYWHERE, generator=np.random.default_rng(1), present_hu=present_hu)
        assert drawn.std() == pytest.approx(drawn_hu, rel=0.1)


def test_a_stripe_is_not_drawn_again(noise: np.ndarray) -> None:
    stripe = np.abs(np.indices(SHAPE)[1] - 15) < 1
    drawn = draw_noise(noise - 50 * stripe.astype(np.float32), EVERYWHERE, generator=np.random.default_rng(1))
    assert abs(drawn[stripe].mean()) < 10


def test_of_no_noise_none_is_drawn() -> None:
    drawn = draw_noise(np.zeros(SHAPE, np.float32), EVERYWHERE, generator=np.random.default_rng(1))
    assert not drawn.any()


def test_a_painted_lesion_has_noise_like_the_scans_where_asked_for(
    synthesizer: PromptLesionSynthesizer, scans: Dataset, drawing: LesionDrawing
) -> None:
    image, labels = read_case(scans, scans.case("lps"))
    limits = {"edge_mm": synthesizer.card.edge_mm, "max_extent_mm": synthesizer.card.max_extent_mm}
    generator = np.random.default_rng(0)
    lesion = place_lesion(labels, scans, 0, drawing=replace(drawing, **limits), generator=generator, image=image)
    without = replace(synthesizer, config=synthesizer.config.model_copy(update={"keep_noise": False}))
    noisy, smooth = (painter.paint([image], [lesion], types=[0], seeds=[3])[0] for painter in (synthesizer, without))
    added = noisy - smooth
    assert 10 < added[lesion.mask].std() < 30  # of the scan's 20 HU
    other, same = (synthesizer.paint([image], [lesion], types=[0], seeds=[seed])[0] for seed in (4, 3))
    assert np.array_equal(same, noisy)
    assert not np.array_equal(other, noisy)
