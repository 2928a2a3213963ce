"""The pattern inside a lesion: what is taken out of it, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from tests.evaluation.lesion_makers import SPACING_MM, textured

from promptlesion.data.lesion_texture import LesionTexture, lesion_texture
from promptlesion.evaluation.lesions import LesionCrop


def _of(lesion: LesionCrop) -> LesionTexture:
    return lesion_texture(lesion.hu, lesion.mask, lesion.spacing_mm)


def test_a_lesion_that_only_fades_to_its_edge_and_slopes_has_no_texture() -> None:
    ball = textured(0)
    depth = np.ceil(ndimage.distance_transform_edt(ball.mask, sampling=[s / 0.8 for s in SPACING_MM]))
    x, y, z = np.indices(ball.mask.shape)
    plain = replace(ball, hu=(40 * depth + 3 * x - 2 * y + z).astype(np.float32))
    texture = _of(plain)
    assert texture.std_hu == pytest.approx(0, abs=1e-3)
    assert texture.pattern_hu == pytest.approx(0, abs=1e-3)


def test_white_noise_keeps_its_strength_and_has_no_grain() -> None:
    ball = textured(1, radius_mm=(6.0, 7.0))
    noise = np.random.default_rng(0).normal(100, 30, ball.mask.shape).astype(np.float32)
    texture = _of(replace(ball, hu=noise))
    assert texture.std_hu == pytest.approx(30, rel=0.08)
    assert texture.neighbour_correlation == pytest.approx(0, abs=0.06)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    correlation = _of(replace(ball, hu=smooth)).neighbour_correlation
    assert correlation is not None and correlation > 0.6


def test_the_surroundings_do_not_matter() -> None:
    ball = textured(2)
    other = replace(ball, hu=np.where(ball.mask, ball.hu, np.float32(3000)))
    np.testing.assert_array_equal(_of(ball).pattern_hu, _of(other).pattern_hu)


def test_a_mirrored_lesion_has_the_mirrored_texture() -> None:
    ball = textured(3)
    mirrored = _of(replace(ball, hu=ball.hu[::-1], mask=ball.mask[::-1]))
    np.testing.assert_allclose(mirrored.pattern_hu[::-1], _of(ball).pattern_hu, atol=1e-6)


def test_a_speck_is_too_small_to_have_any() -> None:
    ball = textured(4)
    mask = np.zeros_like(ball.mask)
    mask[10:12, 10:12, 8] = True
    texture = _of(replace(ball, mask=mask))
    assert texture.std_hu is None or texture.std_hu >= 0
    mask[10:12, 11, 8] = mask[11, 10, 8] = False
    speck = _of(replace(ball, mask=mask))
    assert speck.std_hu is None and speck.neighbour_correlation is None
    assert (speck.pattern_hu == 0).all()
