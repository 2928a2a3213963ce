"""The pattern inside a lesion: what is taken out of it, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from tests.evaluation.lesion_makers import SPACING_MM, textured

from promptlesion.evaluation.lesion_texture import lesion_texture


def test_a_lesion_that_only_fades_to_its_edge_and_slopes_has_no_texture() -> None:
    ball = textured(0)
    depth = np.ceil(ndimage.distance_transform_edt(ball.mask, sampling=[s / 0.8 for s in SPACING_MM]))
    x, y, z = np.indices(ball.mask.shape)
    plain = replace(ball, hu=(40 * depth + 3 * x - 2 * y + z).astype(np.float32))
    texture = lesion_texture(plain)
    assert texture.std_hu == pytest.approx(0, abs=1e-3)
    assert texture.pattern_hu == pytest.approx(0, abs=1e-3)


def test_white_noise_keeps_its_strength_and_has_no_grain() -> None:
    ball = textured(1, radius_mm=(6.0, 7.0))
    noise = np.random.default_rng(0).normal(100, 30, ball.mask.shape).astype(np.float32)
    texture = lesion_texture(replace(ball, hu=noise))
    assert texture.std_hu == pytest.approx(30, rel=0.08)
    assert texture.neighbour_correlation == pytest.approx(0, abs=0.06)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    correlation = lesion_texture(replace(ball, hu=smooth)).neighbour_correlation
    assert correlation is not None and correlation > 0.6


def test_the_surroundings_do_not_matter() -> None:
    ball = textured(2)
    other = replace(ball, hu=np.where(ball.mask, ball.hu, np.float32(3000)))
    np.testing.assert_array_equal(lesion_texture(ball).pattern_hu, lesion_texture(other).pattern_hu)


def test_a_mirrored_lesion_has_the_mirrored_texture() -> None:
    ball = textured(3)
    mirrored = lesion_texture(replace(ball, hu=ball.hu[::-1], mask=ball.mask[::-1]))
    np.testing.assert_allclose(mirrored.pattern_hu[::-1], lesion_texture(ball).pattern_hu, atol=1e-6)


def test_a_speck_is_too_small_to_have_any() -> None:
    ball = textured(4)
    mask = np.zeros_like(ball.mask)
    mask[10:12, 10:12, 8] = True
    texture = lesion_texture(replace(ball, mask=mask))
    assert texture.std_hu is None or texture.std_hu >= 0
    mask[10:12, 11, 8] = mask[11, 10, 8] = False
    speck = lesion_texture(replace(ball, mask=mask))
    assert speck.std_hu is None and speck.neighbour_correlation is None
    assert (speck.pattern_hu == 0).all()
