"""From the scan's grid to the model's patch and back: the same places in world millimetres."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from promptlesion.data.boxes import Box
from promptlesion.data.crops import crop
from promptlesion.data.resampling import resample_array
from promptlesion.data.volume import Volume
from promptlesion.synthesis.patch_grid import PatchGrid, patch_grid, pull_image

SHAPE = (41, 37, 33)
SPACING_MM = (0.8, 1.0, 1.7)
PATCH = 16


def affine_of(spacing_mm: tuple[float, float, float], tilt_degrees: float) -> np.ndarray:
    turn = Rotation.from_euler("xyz", [tilt_degrees, -tilt_degrees, tilt_degrees / 2], degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * spacing_mm
    affine[:3, 3] = (12.3, -45.6, 7.8)
    return affine


def world_mm(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    index = np.stack(np.indices(shape), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def affine_on(volume: Volume, grid: PatchGrid) -> np.ndarray:
    """Where the voxels of a patch lie in the world."""
    index_map = np.diag([*grid.step_voxels, 1.0])
    index_map[:3, 3] = np.array(grid.center_voxel) - grid.patch_voxels // 2 * np.array(grid.step_voxels)
    return volume.affine @ index_map


def grid_around(volume: Volume, center: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> PatchGrid:
    return patch_grid(volume, center, spacing_mm=spacing_mm, patch_voxels=PATCH)


@pytest.fixture(params=[0.0, 17.0], ids=["straight", "oblique"])
def noise(request: pytest.FixtureRequest) -> Volume:
    array = np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)
    return Volume(array, affine_of(SPACING_MM, request.param))


@pytest.mark.parametrize("center", [(20, 18, 16), (2, 35, 16), (40, 0, 32)])
def test_at_the_scans_own_spacing_the_patch_is_a_crop_voxel_for_voxel(
    noise: Volume, center: tuple[int, int, int]
) -> None:
    patch = pull_image(grid_around(noise, center, SPACING_MM), noise)
    x, y, z = (c - PATCH // 2 for c in center)
    expected = crop(noise.array, (x, y, z), (PATCH, PATCH, PATCH), fill=-1024)
    assert np.array_equal(np.rint(patch), expected)
    np.testing.assert_allclose(patch, expected, atol=1e-3)


def test_at_the_scans_own_spacing_the_way_back_is_the_identity(noise: Volume) -> None:
    grid = grid_around(noise, (20, 18, 16), SPACING_MM)
    box = (slice(14, 25), slice(12, 23), slice(9, 22))
    back = grid.push(pull_image(grid, noise), box)
    np.testing.assert_allclose(back, noise.array[box], atol=1e-3)


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 0.8), (1.3, 1.1, 1.9), (0.5, 1.6, 1.2)])
@pytest.mark.parametrize("tilt_degrees", [0.0, 17.0])
def test_at_another_spacing_a_ramp_in_the_world_stays_the_ramp(
    spacing_mm: tuple[float, float, float], tilt_degrees: float
) -> None:
    affine = affine_of(SPACING_MM, tilt_degrees)
    slope = np.array([3.0, -5.0, 2.0])
    ramp = Volume((world_mm(affine, SHAPE) @ slope).astype(np.float32), affine)
    grid = grid_around(ramp, (20, 18, 16), spacing_mm)
    patch = pull_image(grid, ramp)
    expected = world_mm(affine_on(ramp, grid), patch.shape) @ slope
    inside = (slice(2, -2),) * 3
    np.testing.assert_allclose(patch[inside], expected[inside], atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(affine_on(ramp, grid)[:3, :3], axis=0), spacing_mm)
    box: Box = (slice(19, 22), slice(16, 20), slice(15, 18))
    np.testing.assert_allclose(grid.push(patch, box), ramp.array[box], atol=0.02)


@pytest.mark.parametrize("spacing_mm", [SPACING_MM, (1.3, 1.1, 1.9)])
def test_the_middle_of_the_patch_lies_on_the_voxel(noise: Volume, spacing_mm: tuple[float, float, float]) -> None:
    for axis, index in enumerate((20, 18, 16)):
        ramp = noise.with_array(np.indices(SHAPE)[axis].astype(np.float32))
        patch = pull_image(grid_around(ramp, (20, 18, 16), spacing_mm), ramp)
        assert patch[PATCH // 2, PATCH // 2, PATCH // 2] == pytest.approx(index, abs=1e-4)


def test_outside_the_scan_is_air(noise: Volume) -> None:
    full = Volume(np.full(SHAPE, 40, np.int16), noise.affine)
    patch = pull_image(grid_around(full, (0, 18, 16), (1.0, 1.0, 1.2)), full)
    assert (patch[: PATCH // 2 - 1] == -1024).all()
    np.testing.assert_allclose(patch[PATCH // 2 :, 4:12, 4:12], 40, atol=1e-3)


@pytest.mark.parametrize("spacing_mm", [SPACING_MM, (1.3, 1.1, 1.9), (2.0, 2.0, 3.5)])
def test_only_the_neighbourhood_counts(noise: Volume, spacing_mm: tuple[float, float, float]) -> None:
    """A scan with more around it, or with other voxels far away, gives the same patch: cost follows the lesion."""
    size = np.array(SHAPE)
    large = np.pad(noise.array, 30, mode="wrap")
    affine = noise.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 30.0)
    other = np.random.default_rng(1).integers(-1000, 1500, large.shape).astype(np.int16)
    other[tuple(slice(30 - 15, 30 + n + 15) for n in size)] = large[tuple(slice(15, 45 + n) for n in size)]
    patches = [
        pull_image(grid_around(volume, (50, 48, 46), spacing_mm), volume)
        for volume in (Volume(large, affine), Volume(other, affine))
    ]
    assert np.array_equal(*patches)


@pytest.mark.parametrize("spacing_mm", [(1.3, 1.1, 1.9), (2.0, 2.0, 3.5)])
def test_the_neighbourhood_is_wide_enough_to_smooth_in(noise: Volume, spacing_mm: tuple[float, float, float]) -> None:
    """As if the whole scan had been resampled."""
    center, small = (20, 18, 16), 5
    grid = patch_grid(noise, center, spacing_mm=spacing_mm, patch_voxels=small)
    whole = resample_array(noise.array, noise.affine, affine_on(noise, grid), (small, small, small), 1, None)
    np.testing.assert_allclose(pull_image(grid, noise), whole, atol=0.1)


def test_a_patch_wholly_outside_the_scan_is_air(noise: Volume) -> None:
    assert (pull_image(PatchGrid((10_000, 20, 30), (1.0, 1.5, 0.5), 6), noise) == -1024).all()


@pytest.mark.parametrize("spacing_mm", [SPACING_MM, (1.3, 1.1, 1.9)])
def test_where_the_scan_lies_in_the_world_does_not_matter(
    noise: Volume, spacing_mm: tuple[float, float, float]
) -> None:
    moved = noise.affine.copy()
    moved[:3, 3] = (1234.56789, -1 / 3, 1e-7)
    patches = [
        pull_image(grid_around(volume, (20, 18, 16), spacing_mm), volume)
        for volume in (noise, Volume(noise.array, moved))
    ]
    assert patches[0].tobytes() == patches[1].tobytes()


@pytest.mark.parametrize("spacing_mm", [SPACING_MM, (1.3, 1.1, 1.9), (0.5, 1.6, 1.2)])
@pytest.mark.parametrize("center", [(20, 18, 16), (2, 35, 16), (40, 0, 32)])
def test_the_footprint_is_what_the_patch_covers_of_the_scan(
    noise: Volume, center: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    grid = grid_around(noise, center, spacing_mm)
    covered = np.zeros(SHAPE, dtype=bool)
    covered[grid.footprint(noise.shape)] = True
    first = affine_on(noise, grid) @ (0, 0, 0, 1)
    last = affine_on(noise, grid) @ (PATCH - 1, PATCH - 1, PATCH - 1, 1)
    low, high = ((np.linalg.inv(noise.affine) @ corner)[:3] for corner in (first, last))
    index = np.indices(SHAPE).T.swapaxes(0, 2)
    expected = ((index >= low - 1e-6) & (index <= high + 1e-6)).all(axis=-1)
    assert np.array_equal(covered, expected)
