"""The brush strokes: closed forms of the distances, statistics of the noise, partial volume."""

import numpy as np
import pytest

from promptlesion.data.phantom.geometry import (
    Grid,
    Lattice,
    capsule_distance,
    coverage,
    ellipsoid_distance,
    paint,
    smooth_noise,
    smooth_union,
)
from promptlesion.data.phantom.scanner import correlated_noise, scan

GRID = Grid((40, 36, 28), (0.8, 0.7, 1.1))


def test_the_affine_maps_indices_to_the_coordinates_that_shapes_use() -> None:
    index = np.array([3, 30, 11, 1])
    position = (GRID.affine @ index)[:3]
    expected = [float(axis.ravel()[i]) for axis, i in zip(GRID.axes_mm, index, strict=False)]
    assert position == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(GRID.affine.astype(np.float32), GRID.affine)


def test_a_lattice_reproduces_linear_functions_exactly() -> None:
    lattice = Lattice(GRID, 3.0)
    first, second, third = lattice.axes_mm
    expected = np.broadcast_to(2 * GRID.axes_mm[0] - GRID.axes_mm[1] + 0.5 * GRID.axes_mm[2], GRID.shape)
    assert lattice.to_grid(2 * first - second + np.float32(0.5) * third) == pytest.approx(expected, abs=1e-3)


def test_a_sphere_has_its_distance_and_its_volume_with_partial_volume() -> None:
    radius = 8.0
    distance = ellipsoid_distance(GRID.axes_mm, (0.6, -0.3, 0.2), (radius, radius, radius), (1.0, 2.0, -1.0))
    offsets = [axis - middle for axis, middle in zip(GRID.axes_mm, (0.6, -0.3, 0.2), strict=True)]
    expected = np.sqrt(sum(offset**2 for offset in offsets)) - radius
    assert distance == pytest.approx(expected, abs=1e-3)
    volume = coverage(distance, 0.85).sum() * np.prod(GRID.spacing_mm)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_an_ellipsoid_points_where_it_is_told_to() -> None:
    direction = np.array([1.0, 2.0, 2.0]) / 3
    tip = [np.float32([[[value * 9]]]) for value in direction]
    assert ellipsoid_distance(tip, (0.0, 0.0, 0.0), (9.0, 4.0, 5.0), direction.tolist()) == pytest.approx(0, abs=1e-4)


def test_a_capsule_is_a_segment_with_a_radius() -> None:
    points = [np.float32([[[value]]]) for value in (5.0, 3.0, 0.0)]
    assert capsule_distance(points, (0.0, 0.0, 0.0), (4.0, 0.0, 0.0), 1.0).item() == pytest.approx(
        np.sqrt(10) - 1, abs=1e-5
    )


def test_a_smooth_union_contains_both_and_is_the_nearer_one_far_from_the_crease() -> None:
    first, second = np.float32([-5.0, 1.0, 30.0]), np.float32([20.0, 1.0, -4.0])
    union = smooth_union([first, second], 2.0)
    assert np.all(union <= np.minimum(first, second) + 1e-5)
    assert union[[0, 2]] == pytest.approx([-5, -4], abs=1e-3)
    assert union[1] == pytest.approx(1 - 2 * np.log(2), abs=1e-5)


def test_painting_mixes_by_the_share_covered() -> None:
    hu = np.float32([-100, -100, -100])
    paint(hu, 300.0, np.float32([0, 0.25, 1]))
    assert hu.tolist() == [-100, 0, 300]


def test_noise_is_standard_and_as_wide_as_asked() -> None:
    grid = Grid((90, 84, 76), (1.0, 1.2, 0.9))
    noise = smooth_noise(np.random.default_rng(0), grid, 4.0)
    assert noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.std() == pytest.approx(1, abs=0.05)
    near, far = (np.mean(noise[step:] * noise[:-step]) for step in (1, 16))
    assert near > 0.85
    assert abs(far) < 0.1


def test_the_scanner_keeps_means_blurs_edges_and_stores_whole_numbers() -> None:
    grid = Grid((60, 50, 40), (0.6, 0.6, 0.6))
    hu = np.full(grid.shape, 40, np.float32)
    hu[30:] = 400
    scanner = {"point_spread_mm": (0.6, 0.5), "noise_hu": 20.0, "noise_grain_mm": 0.55}
    image = scan(hu, grid, np.random.default_rng(1), **scanner)
    assert image.dtype == np.int16
    assert image[:20].mean() == pytest.approx(40, abs=2)
    assert image[:20].std() == pytest.approx(20, rel=0.1)
    edge = image.mean(axis=(1, 2))
    assert 40 + 20 < edge[29] < 220 < edge[30] < 400 - 20
    extreme = scan(hu * 100, grid, np.random.default_rng(1), **scanner)
    assert extreme.max() == 3071


def test_scanner_noise_is_correlated_between_neighbours_but_not_further() -> None:
    noise = correlated_noise(np.random.default_rng(2), Grid((80, 70, 60), (0.6, 0.6, 0.6)), 0.55)
    neighbour, distant = (np.mean(noise[step:] * noise[:-step]) for step in (1, 8))
    assert 0.4 < neighbour < 0.95
    assert abs(distant) < 0.1
