"""A crescent is as long, as wide and as thick as drawn, grows where the wall is thin, and is never in the lumen."""

from dataclasses import replace

import numpy as np
import pytest
from tests.masks.tubes import LUMEN, WALL, bent, forked, grid_mm, tube_labels, volume, wall_voxel_near

from promptlesion.data.boxes import by_label
from promptlesion.data.volume import Volume
from promptlesion.masks.clearance import Refusal
from promptlesion.masks.crescent import Crescent, draw_crescent, grow_crescent
from promptlesion.masks.growth import GrownMask, Site

SHAPE = (72, 60, 90)
TABLES = (by_label((WALL,)), by_label((LUMEN,)))
"""Of the host and the lumen."""
PLAIN = Crescent(8.0, 4.0, 1.5, wave_vectors=np.zeros((5, 2)), wave_phases=np.full(5, np.pi / 2))
"""Eight times four millimetres, and no ragged rim."""


def grow(labels: Volume, voxel: tuple[int, int, int], crescent: Crescent, diameter_mm: float) -> np.ndarray:
    """The mask on the scan, after checking what holds for all."""
    grown = grow_crescent(crescent, Site(labels, *TABLES, voxel, diameter_mm, 30.0))
    assert isinstance(grown, GrownMask)
    assert grown.origin == "crescent"
    mask = np.zeros(labels.shape, dtype=bool)
    mask[grown.box] = grown.mask
    assert set(labels.array[mask]) == {WALL}
    return mask


def diameter(mask: np.ndarray, labels: Volume) -> float:
    return float((6 / np.pi * mask.sum() * np.prod(labels.spacing_mm)) ** (1 / 3))


def straight(lumen_mm: float, wall_mm: float) -> tuple[Volume, np.ndarray, np.ndarray, np.ndarray]:
    """A tube along z, and every voxel's distance from the axis, angle and height."""
    positions = grid_mm(SHAPE)
    radius = np.hypot(positions[..., 0], positions[..., 1])
    angle = np.arctan2(positions[..., 1], positions[..., 0])
    return volume(tube_labels(radius, lumen_mm=lumen_mm, wall_mm=wall_mm)), radius, angle, positions[..., 2]


@pytest.mark.parametrize("lumen_mm", [2.0, 5.0])
def test_in_a_thick_wall_it_has_the_drawn_length_angle_and_thickness(lumen_mm: float) -> None:
    labels, radius, angle, height = straight(lumen_mm, 4.0)
    voxel = wall_voxel_near(labels.array, np.array([lumen_mm + 0.3, 0.0, 0.0]), grid_mm(SHAPE))
    # the volume of half an ellipsoid of these sides on a plane; around a tube there is more room than on a plane
    diameter_mm = (8.0 * 4.0 * 1.5) ** (1 / 3)
    mask = grow(labels, voxel, PLAIN, diameter_mm)
    assert diameter(mask, labels) == pytest.approx(diameter_mm, rel=0.05)
    assert np.ptp(height[mask]) == pytest.approx(8.0, abs=1.4)
    assert np.degrees(np.ptp(angle[mask])) == pytest.approx(np.degrees(4.0 / lumen_mm), abs=40 / lumen_mm)
    assert np.ptp(radius[mask]) == pytest.approx(1.5, abs=0.8)
    # it lies on the lumen all along, and tapers to its ends
    assert radius[mask].min() < lumen_mm + 0.6
    ends, middle = (mask & (np.abs(height) > 2.8)), (mask & (np.abs(height) < 1.0))
    assert radius[ends].max() < radius[middle].max() - 0.3


def test_where_the_wall_is_thinner_it_grows_along_and_around() -> None:
    sizes = []
    for wall_mm in (4.0, 1.0):
        labels, radius, angle, height = straight(2.0, wall_mm)
        voxel = wall_voxel_near(labels.array, np.array([2.3, 0.0, 0.0]), grid_mm(SHAPE))
        mask = grow(labels, voxel, PLAIN, 4.0)
        assert diameter(mask, labels) == pytest.approx(4.0, rel=0.05)
        sizes.append((np.ptp(height[mask]), np.ptp(angle[mask]), np.ptp(radius[mask])))
    thick, thin = sizes
    assert thin[2] < thick[2]
    assert thin[0] > 1.1 * thick[0]
    assert thin[1] > 1.1 * thick[1]


def test_it_bends_with_the_vessel() -> None:
    radius, arc, positions = bent((60, 80, 40), 12.0, (0.5, 0.6, 0.7))
    labels = volume(tube_labels(radius, lumen_mm=1.6, wall_mm=1.4))
    voxel = wall_voxel_near(labels.array, np.array([2.0, 0.0, 0.0]), positions)
    mask = grow(labels, voxel, PLAIN, 4.2)
    assert diameter(mask, labels) == pytest.approx(4.2, rel=0.05)
    # on the outer side the arc is a few per cent longer than on the centreline
    assert np.abs(arc[mask] - arc[voxel]).max() == pytest.approx(np.ptp(arc[mask]) / 2, abs=0.8)
    assert np.ptp(arc[mask]) > 7
    across = np.arctan2(positions[..., 2], np.hypot(positions[..., 0] + 12, positions[..., 1]) - 12)
    assert np.degrees(np.abs(across[mask])).max() < 110


@pytest.mark.parametrize("seed", range(6))
def test_ragged_ones_keep_volume_host_and_side(seed: int) -> None:
    labels, _, angle, _ = straight(2.0, 1.6)
    generator = np.random.default_rng(seed)
    voxel = wall_voxel_near(labels.array, np.array([0.0, 2.5, 3.0]), grid_mm(SHAPE))
    mask = grow(labels, voxel, draw_crescent(generator), 3.6)
    assert diameter(mask, labels) == pytest.approx(3.6, rel=0.06)
    assert np.abs(np.angle(np.exp(1j * (angle[mask] - np.pi / 2))).mean()) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_a_branch_far_off_changes_nothing_that_matters(seed: int) -> None:
    """The same crescent 9 mm from a side branch and on the tube without it."""
    positions = grid_mm((80, 50, 76))
    with_branch, main, _ = forked()
    plain = tube_labels(main, lumen_mm=2.0, wall_mm=1.2)
    voxel = wall_voxel_near(plain, np.array([-2.5, 0.0, -9.0]), positions)
    crescent = replace(draw_crescent(np.random.default_rng(seed)), length_mm=6.0)
    first, second = (grow(volume(labels), voxel, crescent, 3.4) for labels in (with_branch, plain))
    height = positions[..., 2]
    assert np.ptp(height[first]) == pytest.approx(np.ptp(height[second]), abs=1.5)
    assert (first & second).sum() > 0.7 * first.sum()


def test_proportions_are_those_of_coronary_plaque() -> None:
    drawn = [draw_crescent(np.random.default_rng(seed)) for seed in range(200)]
    degrees = np.degrees([crescent.width_mm / 1.5 for crescent in drawn])
    assert 60 <= degrees.min() < 70 < 165 < degrees.max() <= 180
    lengths, depths = ([getattr(crescent, name) for crescent in drawn] for name in ("length_mm", "thickness_mm"))
    assert 2.5 <= min(lengths) < 2.7 < 5.7 < max(lengths) <= 6
    assert 1.2 <= min(depths) < 1.3 < 2.1 < max(depths) <= 2.2
    again = draw_crescent(np.random.default_rng(7))
    assert np.array_equal(again.wave_vectors, drawn[7].wave_vectors)


def test_without_a_vessel_it_says_so() -> None:
    labels = volume(np.full((30, 30, 30), WALL, dtype=np.uint8))
    refused = grow_crescent(PLAIN, Site(labels, *TABLES, (15, 15, 15), 4.0, 20.0))
    assert isinstance(refused, Refusal)
    assert refused.reason == "no vessel to follow beside it"


def test_beside_fat_a_thin_wall_is_thickened_outward() -> None:
    """In a wall of a millimetre the plaque is spread along the vessel; into fat it keeps the drawn thickness."""
    labels, radius, _, height = straight(2.0, 1.0)
    hu = np.where(radius <= 2.0, 400, np.where(radius <= 3.0, 30, -90))
    hu[grid_mm(SHAPE)[..., 0] < -3.5] = 60  # muscle on the other side
    scan = Volume(hu.astype(np.int16), labels.affine)
    voxel = wall_voxel_near(labels.array, np.array([2.4, 0.0, 0.0]), grid_mm(SHAPE))
    masks = []
    for image in (None, scan):
        grown = grow_crescent(PLAIN, Site(labels, *TABLES, voxel, 4.0, 30.0, image))
        assert isinstance(grown, GrownMask)
        mask = np.zeros(labels.shape, dtype=bool)
        mask[grown.box] = grown.mask
        assert not (labels.array[mask] == LUMEN).any()
        assert diameter(mask, labels) == pytest.approx(4.0, rel=0.05)
        masks.append(mask)
    within, outward = masks
    assert np.ptp(height[outward]) < np.ptp(height[within])
    assert radius[within].max() <= 3.0
    assert 3.2 < radius[outward].max() < 2.0 + 2.5
    assert not (hu[outward] == 60).any()
