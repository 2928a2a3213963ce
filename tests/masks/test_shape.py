"""Deformed ellipsoids have the volume and the radius they are asked to have."""

from dataclasses import replace

import numpy as np
import pytest

from promptlesion.masks.shape import DeformedEllipsoid, draw_ellipsoid


def grid_mm(half_width: float, step: float) -> np.ndarray:
    axis = np.arange(-half_width, half_width + step / 2, step)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


@pytest.mark.parametrize("seed", range(4))
def test_an_undeformed_ellipsoid_has_the_volume_of_its_sphere(seed: int) -> None:
    ellipsoid = draw_ellipsoid(np.random.default_rng(seed), deformation=0.0)
    assert np.prod(ellipsoid.deformation.axis_ratios) == pytest.approx(1)
    volume_mm3 = (ellipsoid.radius_ratio(grid_mm(8.0, 0.25), radius_mm=5.0) < 1).sum() * 0.25**3
    assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 5.0**3, rel=0.01)


def test_its_axes_are_as_long_as_the_ratios_say() -> None:
    ellipsoid = draw_ellipsoid(np.random.default_rng(1), deformation=0.0)
    ratios, rotation = ellipsoid.deformation.axis_ratios, ellipsoid.deformation.rotation
    np.testing.assert_allclose(ellipsoid.radius_ratio(3.0 * ratios[:, None] * rotation.T, radius_mm=3.0), 1.0)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_the_ratio_is_linear_along_a_ray_and_in_the_radius() -> None:
    ellipsoid = draw_ellipsoid(np.random.default_rng(2), deformation=0.25)
    direction = np.random.default_rng(3).normal(size=(20, 3))
    ratio = ellipsoid.radius_ratio(direction, radius_mm=2.0)
    np.testing.assert_allclose(ellipsoid.radius_ratio(3 * direction, radius_mm=2.0), 3 * ratio)
    np.testing.assert_allclose(ellipsoid.radius_ratio(direction, radius_mm=6.0), ratio / 3)
    assert ellipsoid.radius_ratio(np.zeros((1, 3)), radius_mm=2.0) == 0


def test_the_surface_deviates_by_the_deformation_and_by_nothing_on_average() -> None:
    generator = np.random.default_rng(4)
    directions = generator.normal(size=(500, 3))
    deviations = []
    for _ in range(300):
        plain = draw_ellipsoid(generator, deformation=0.0)
        deformed = DeformedEllipsoid(replace(plain.deformation, amplitude=0.1))
        ratio = plain.radius_ratio(directions, radius_mm=1.0) / deformed.radius_ratio(directions, radius_mm=1.0)
        deviations.append(ratio - 1)
    assert np.mean(deviations) == pytest.approx(0, abs=0.01)
    assert np.std(deviations) == pytest.approx(0.1, rel=0.05)


def test_a_generator_gives_the_same_shape_again() -> None:
    first, again, other = (draw_ellipsoid(np.random.default_rng(seed), deformation=0.2) for seed in (5, 5, 6))
    points = grid_mm(2.0, 1.0)
    assert np.array_equal(first.radius_ratio(points, radius_mm=2.0), again.radius_ratio(points, radius_mm=2.0))
    assert not np.array_equal(first.radius_ratio(points, radius_mm=2.0), other.radius_ratio(points, radius_mm=2.0))
