"""Along and around an analytic tube: arc length, angle and depth are what the tube was made with."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tests.masks.tubes import LUMEN, SPACING, WALL, bent, forked, grid_mm, tube_labels, volume, wall_voxel_near

from promptlesion.data.boxes import by_label
from promptlesion.data.volume import Volume
from promptlesion.masks.growth import Site
from promptlesion.masks.vessel import VesselWall, vessel_wall

TILT = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()


def follow(labels: Volume, voxel: tuple[int, int, int], *, reach_mm: float = 12.0) -> VesselWall | None:
    return vessel_wall(Site(labels, by_label((WALL,)), by_label((LUMEN,)), voxel, 4.0, 2 * reach_mm))


@pytest.mark.parametrize(("lumen_mm", "wall_mm"), [(1.5, 1.4), (4.0, 1.2)])
def test_a_straight_oblique_tube(lumen_mm: float, wall_mm: float) -> None:
    positions = grid_mm((70, 64, 58)) @ TILT
    radius, axis = np.hypot(positions[..., 0], positions[..., 1]), positions[..., 2]
    around = np.arctan2(positions[..., 1], positions[..., 0])
    array = tube_labels(radius, lumen_mm=lumen_mm, wall_mm=wall_mm)
    labels = volume(array)
    voxel = wall_voxel_near(array, np.array([lumen_mm + 0.3, 0.0, 0.0]), positions)
    wall = follow(labels, voxel)
    assert wall is not None
    index = tuple((wall.voxels + [side.start for side in wall.box]).T)
    is_near = np.abs(wall.arc_mm) < 10
    assert is_near.sum() > 500
    true_arc, true_angle = axis[index] - axis[voxel], np.angle(np.exp(1j * (around[index] - around[voxel])))
    sign = np.sign(np.corrcoef(wall.arc_mm, true_arc)[0, 1])
    assert np.abs(sign * wall.arc_mm - true_arc)[is_near].max() < 0.7
    # running the other way, angles turn the other way
    error = np.angle(np.exp(1j * (sign * wall.angle - true_angle)))[is_near]
    assert np.degrees(np.abs(error)).mean() < 6
    assert np.abs(wall.depth_mm - (radius[index] - lumen_mm))[is_near].max() < 0.7
    assert wall.lumen_radius_mm == pytest.approx(lumen_mm, abs=0.5)
    # all of the wall that is near, and nothing twice
    assert is_near.sum() / ((array == WALL) & (np.abs(axis - axis[voxel]) < 10)).sum() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 0.5), (0.5, 0.6, 0.8)])
def test_arc_length_follows_a_bend(spacing_mm: tuple[float, float, float]) -> None:
    radius, arc, positions = bent((60, 80, 40), 12.0, spacing_mm)
    array = tube_labels(radius, lumen_mm=1.6, wall_mm=1.3)
    voxel = wall_voxel_near(array, np.array([0.0, 0.0, 2.0]), positions)
    wall = follow(volume(array, spacing_mm), voxel, reach_mm=14.0)
    assert wall is not None
    index = tuple((wall.voxels + [side.start for side in wall.box]).T)
    is_near = np.abs(wall.arc_mm) < 10
    true_arc = arc[index] - arc[voxel]
    sign = np.sign(np.corrcoef(wall.arc_mm[is_near], true_arc[is_near])[0, 1])
    assert np.abs(sign * wall.arc_mm - true_arc)[is_near].mean() < 0.35
    slope = np.polyfit(true_arc[is_near], sign * wall.arc_mm[is_near], 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("z_mm", [-6.0, 5.0])
def test_a_side_branch_does_not_turn_the_way(z_mm: float) -> None:
    positions = grid_mm((80, 50, 76))
    labels, main, _ = forked()
    voxel = wall_voxel_near(labels, np.array([-2.5, 0.0, z_mm]), positions)
    wall = follow(volume(labels), voxel)
    assert wall is not None
    index = tuple((wall.voxels + [side_.start for side_ in wall.box]).T)
    true_arc = positions[index][:, 2] - positions[voxel][2]
    sign = np.sign(np.corrcoef(wall.arc_mm, true_arc)[0, 1])
    opposite = positions[index][:, 0] < 0
    is_near = (np.abs(wall.arc_mm) < 9) & opposite
    assert np.abs(sign * wall.arc_mm - true_arc)[is_near].max() < 1.0
    # the branch's own wall is none of this vessel's: the lumen nearest to it is off by more than half a radius
    assert main[index].max() < 1.5 * 2.0 + 0.7 + 1.2 < main[labels == WALL].max() - 10


def test_a_voxel_of_the_side_branch_follows_the_branch() -> None:
    positions = grid_mm((80, 50, 76))
    labels, _, _ = forked()
    heading = np.array([np.sin(np.radians(70)), 0.0, np.cos(np.radians(70))])
    voxel = wall_voxel_near(labels, 10 * heading + np.array([0.0, 1.9, 0.0]), positions)
    wall = follow(volume(labels), voxel)
    assert wall is not None
    index = tuple((wall.voxels + [side.start for side in wall.box]).T)
    outwards = positions[index] @ heading
    is_far = outwards > 6
    true_arc = outwards - positions[voxel] @ heading
    sign = np.sign(np.corrcoef(wall.arc_mm[is_far], true_arc[is_far])[0, 1])
    assert np.abs(sign * wall.arc_mm - true_arc)[is_far].max() < 1.0
    assert wall.lumen_radius_mm == pytest.approx(1.3, abs=0.4)


def test_two_vessels_side_by_side_keep_their_own_walls() -> None:
    positions = grid_mm((60, 44, 50))
    left, right = (np.hypot(positions[..., 0] - x, positions[..., 1]) for x in (-3.0, 3.0))
    labels = tube_labels(np.minimum(left, right), lumen_mm=1.6, wall_mm=1.5)
    wall = follow(volume(labels), wall_voxel_near(labels, np.array([-3.0, 2.3, 0.0]), positions))
    assert wall is not None
    index = tuple((wall.voxels + [side.start for side in wall.box]).T)
    assert (left[index] < right[index] + 0.7).all()


def test_the_origin_of_the_scan_does_not_matter() -> None:
    radius, _, positions = bent((60, 80, 40), 12.0, SPACING)
    array = tube_labels(radius, lumen_mm=1.6, wall_mm=1.3)
    voxel = wall_voxel_near(array, np.array([0.0, 0.0, 2.0]), positions)
    here = volume(array)
    moved = here.affine.copy()
    moved[:3, 3] = (-123.456, 7.89, 1000.1)
    first, second = follow(here, voxel), follow(Volume(array, moved), voxel)
    assert first is not None
    assert second is not None
    for name in ("voxels", "arc_mm", "angle", "depth_mm"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize(
    "change",
    [
        lambda labels: np.where(labels == LUMEN, 0, labels),
        lambda labels: np.where((labels == LUMEN) & (np.indices(labels.shape)[2] != 25), 0, labels),
    ],
    ids=["no lumen", "a slice of one"],
)
def test_without_a_vessel_beside_it_there_is_nothing_to_follow(change: Callable[[np.ndarray], np.ndarray]) -> None:
    positions = grid_mm((40, 40, 50))
    radius = np.hypot(positions[..., 0], positions[..., 1])
    array = change(tube_labels(radius, lumen_mm=3.0, wall_mm=1.5)).astype(np.uint8)
    voxel = wall_voxel_near(array, np.array([3.7, 0.0, 0.0]), positions)
    wall = follow(volume(array), voxel)
    assert wall is None or np.ptp(wall.arc_mm) < 8


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (2, 2, 2), (1, 1, 3)])
def test_a_speck_of_lumen_is_no_vessel(size: tuple[int, int, int]) -> None:
    array = np.zeros((14, 14, 14), dtype=np.uint8)
    array[4:10, 4:10, 4:10] = WALL
    array[tuple(slice(6, 6 + n) for n in size)] = LUMEN
    assert follow(volume(array), (5, 6, 6)) is None
