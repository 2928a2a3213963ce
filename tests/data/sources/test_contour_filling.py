"""Contours become pixels as their nesting says, against an independent rasteriser."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from promptlesion.data.sources.contour_filling import encloses_no_pixel, filled

SHAPE = (23, 17)


def box(left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """A rectangle around columns left to right and rows top to bottom, half a pixel outside their centres."""
    edges = (left - 0.5, right + 0.5, top - 0.5, bottom + 0.5)
    return np.array([(edges[column], edges[row]) for column, row in ((0, 2), (1, 2), (1, 3), (0, 3))])


def pixels(left: int, right: int, top: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[left : right + 1, top : bottom + 1] = True
    return mask


def around(middle: tuple[float, float], radii: tuple[float, float], num_corners: int = 24) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, num_corners, endpoint=False) + 0.1
    return np.array(middle) + np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)


def inside(outline: np.ndarray) -> np.ndarray:
    """Pixels whose centre matplotlib finds inside."""
    centres = np.argwhere(np.ones(SHAPE, dtype=bool))
    return Outline(np.vstack([outline, outline[:1]])).contains_points(centres).reshape(SHAPE)


@pytest.mark.parametrize("num_rounds", [1, 2, 3])
def test_a_contour_listed_again_or_redrawn_stays_filled(num_rounds: int) -> None:
    generator = np.random.default_rng(num_rounds)
    once = around((11, 8), (7.3, 5.2))
    copies = [once[::-1], np.roll(once, 5, axis=0), once + generator.uniform(-0.05, 0.05, once.shape)]
    assert np.array_equal(filled([once, *copies[:num_rounds]], SHAPE, is_xor=False), inside(once))
    hole = around((11, 8), (3.3, 2.2))
    with_hole = filled([copies[0], hole, *copies[1:num_rounds], once, hole[::-1]], SHAPE, is_xor=False)
    assert np.array_equal(with_hole, inside(once) & ~inside(hole))


def test_contours_that_overlap_in_part_or_touch_are_joined() -> None:
    overlapping = filled([box(3, 7, 3, 6), box(6, 10, 5, 8)], SHAPE, is_xor=False)
    assert np.array_equal(overlapping, pixels(3, 7, 3, 6) | pixels(6, 10, 5, 8))
    touching = filled([box(3, 7, 3, 6), box(8, 9, 3, 6)], SHAPE, is_xor=False)
    assert np.array_equal(touching, pixels(3, 9, 3, 6))
    crossed = filled([box(2, 12, 7, 8), box(6, 7, 2, 14)], SHAPE, is_xor=False)
    assert np.array_equal(crossed, pixels(2, 12, 7, 8) | pixels(6, 7, 2, 14))


def test_a_bar_across_a_notch_is_no_hole() -> None:
    """All corners of the bar lie inside the U, but the bar does not."""
    u_shape = np.array(
        [(1.5, 1.5), (5.5, 1.5), (5.5, 10.5), (12.5, 10.5), (12.5, 1.5), (16.5, 1.5), (16.5, 14.5), (1.5, 14.5)]
    )
    bar = box(3, 15, 4, 6)
    assert np.array_equal(filled([u_shape, bar], SHAPE, is_xor=False), inside(u_shape) | inside(bar))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("is_xor", [True, False])
def test_nested_contours_are_hole_and_island(order: tuple[int, ...], is_xor: bool) -> None:
    nested = [around((11, 8), radii) for radii in ((9.3, 7.2), (6.1, 4.6), (3.2, 2.3))]
    expected = inside(nested[0]) & ~inside(nested[1]) | inside(nested[2])
    assert np.array_equal(filled([nested[index] for index in order], SHAPE, is_xor=is_xor), expected)


def test_two_holes_that_overlap_are_joined_and_a_wall_of_a_pixel_stays() -> None:
    outer, holes = box(1, 18, 1, 14), [box(3, 8, 3, 8), box(7, 12, 6, 11)]
    expected = pixels(1, 18, 1, 14) & ~pixels(3, 8, 3, 8) & ~pixels(7, 12, 6, 11)
    assert np.array_equal(filled([outer, *holes], SHAPE, is_xor=False), expected)
    wall = filled([box(3, 9, 3, 9), box(4, 8, 4, 8)], SHAPE, is_xor=False)
    assert np.array_equal(wall, pixels(3, 9, 3, 9) & ~pixels(4, 8, 4, 8))


def test_only_xor_cancels_what_overlaps() -> None:
    contours = [box(3, 7, 3, 6), box(6, 10, 5, 8)]
    assert np.array_equal(filled(contours, SHAPE, is_xor=True), pixels(3, 7, 3, 6) ^ pixels(6, 10, 5, 8))


@pytest.mark.parametrize(
    ("outline", "pixel"),
    [
        (np.array([(5.2, 4.2), (5.4, 4.2), (5.4, 4.4), (5.2, 4.4)]), (5, 4)),
        (np.array([(5.6, 4.6), (5.9, 4.6), (5.9, 4.9)]), (6, 5)),
        (np.array([(22.3, 16.2), (22.6, 16.2), (22.6, 16.4)]), (22, 16)),
        (np.array([(5.3, 4.2)]), (5, 4)),
        (np.array([(5.3, 4.2), (5.4, 4.2)]), (5, 4)),
    ],
)
@pytest.mark.parametrize("is_xor", [True, False])
def test_a_contour_between_centres_keeps_its_nearest_pixel(
    outline: np.ndarray, pixel: tuple[int, int], is_xor: bool
) -> None:
    assert encloses_no_pixel(outline)
    assert np.argwhere(filled([outline], SHAPE, is_xor=is_xor)).tolist() == [list(pixel)]
    beside = [box(1, 3, 10, 12), outline]
    assert filled(beside, SHAPE, is_xor=is_xor).sum() == 10


def test_a_tiny_hole_cuts_nothing_and_a_tiny_contour_outside_is_not_moved_in() -> None:
    tiny = np.array([(5.2, 4.2), (5.4, 4.2), (5.4, 4.4), (5.2, 4.4)])
    for is_xor in (True, False):
        assert np.array_equal(filled([box(2, 9, 2, 9), tiny], SHAPE, is_xor=is_xor), pixels(2, 9, 2, 9))
        assert not filled([tiny - 10], SHAPE, is_xor=is_xor).any()


def test_what_runs_around_the_pixels_from_outside_is_no_tiny_contour() -> None:
    """A couch: a thin C all outside, whose middle lies in the scan."""
    couch = np.array([(-5, -5), (30, -5), (30, -4), (-4, -4), (-4, 20), (30, 20), (30, 21), (-5, 21)], dtype=float)
    assert not filled([couch], SHAPE, is_xor=False).any()
    assert not filled([box(-6, -0.8, 3, 8)], SHAPE, is_xor=False).any()
