import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from promptlesion.data.resampling import resample_array, resample_to_spacing
from promptlesion.data.volume import Volume

SPACING_MM = (0.8, 1.2, 2.5)


def oblique_affine(degrees: float = 9.0) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [degrees, -degrees, degrees / 2], degrees=True)
    affine[:3, :3] = turn.as_matrix() * SPACING_MM
    affine[:3, 3] = (-40.0, 12.0, 300.0)
    return affine


def world_of(volume: Volume) -> np.ndarray:
    index = np.moveaxis(np.indices(volume.shape), 0, -1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def linear_volume(shape: tuple[int, int, int] = (24, 18, 13)) -> Volume:
    """HU that grow linearly in the world, so that linear interpolation is exact away from the border."""
    volume = Volume(array=np.zeros(shape, np.float32), affine=oblique_affine())
    return volume.with_array((world_of(volume) @ (3.0, -2.0, 5.0)).astype(np.float32))


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 0.5), (0.8, 1.5, 1.0), (2.0, 1.2, 4.0)])
def test_values_stay_where_they_are_in_the_world(spacing_mm: tuple[float, float, float]) -> None:
    volume = linear_volume()
    resampled = resample_to_spacing(volume, spacing_mm, order=1)
    np.testing.assert_allclose(resampled.spacing_mm, spacing_mm, rtol=1e-9)
    expected = world_of(resampled) @ (3.0, -2.0, 5.0)
    index = (world_of(resampled) - volume.affine[:3, 3]) @ np.linalg.inv(volume.affine[:3, :3]).T
    margin = 4.0
    inner = ((index > margin) & (index < np.array(volume.shape) - 1 - margin)).all(axis=-1)
    assert inner.any()
    np.testing.assert_allclose(resampled.array[inner], expected[inner], atol=0.05)


def test_the_outer_corner_and_the_extent_stay() -> None:
    volume = linear_volume((30, 20, 16))
    resampled = resample_to_spacing(volume, (1.6, 0.6, 5.0), order=1)
    assert resampled.shape == (15, 40, 8)
    for corner_of in (np.zeros, np.array):
        corners = [
            vol.affine @ [*(np.array(vol.shape) * (corner_of is np.array) - 0.5), 1.0] for vol in (volume, resampled)
        ]
        np.testing.assert_allclose(corners[0], corners[1], atol=1e-9)
    np.testing.assert_allclose(
        resampled.affine[:3, :3] / resampled.spacing_mm, volume.affine[:3, :3] / volume.spacing_mm, atol=1e-12
    )
    assert resampled.source_header is None


def test_the_same_spacing_is_the_same_volume() -> None:
    volume = linear_volume()
    assert resample_to_spacing(volume, SPACING_MM, order=1) is volume
    x, y, z = SPACING_MM
    assert resample_to_spacing(volume, (x + 5e-4, y, z - 5e-4), order=0) is volume


def test_labels_keep_their_values_and_about_their_volume() -> None:
    labels = np.zeros((24, 18, 12), np.uint8)
    labels[6:16, 5:12, 3:9] = 3
    labels[10:14, 7:10, 5:7] = 4
    volume = Volume(array=labels, affine=np.diag([*SPACING_MM, 1.0]))
    for spacing_mm in ((0.5, 0.5, 0.5), (1.0, 1.5, 3.0)):
        resampled = resample_to_spacing(volume, spacing_mm, order=0)
        assert resampled.array.dtype == np.uint8
        assert set(np.unique(resampled.array)) == {0, 3, 4}
        before = (labels == 3).sum() * np.prod(SPACING_MM)
        assert (resampled.array == 3).sum() * np.prod(spacing_mm) == pytest.approx(before, rel=0.3)


def test_coarsening_smooths_first_and_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).normal(40.0, 30.0, (48, 48, 48)).astype(np.float32)
    volume = Volume(array=noise, affine=np.eye(4))
    coarse = resample_to_spacing(volume, (3.0, 3.0, 3.0), order=1).array
    assert coarse.shape == (16, 16, 16)
    assert coarse.mean() == pytest.approx(40.0, abs=1.5)
    assert coarse.std() < 30.0 / 3
    constant = volume.with_array(np.full(volume.shape, 37, np.int16))
    np.testing.assert_allclose(resample_to_spacing(constant, (3.0, 2.0, 1.3), order=1).array, 37.0, rtol=1e-6)


def test_scipy_map_coordinates_agrees() -> None:
    generator = np.random.default_rng(2)
    array = generator.normal(size=(12, 9, 7)).astype(np.float32)
    source, target = oblique_affine(), oblique_affine(3.0)
    target[:3, :3] *= 0.7
    index_map = np.linalg.inv(source) @ target
    coordinates = np.tensordot(index_map[:3, :3], np.indices((10, 11, 12)), 1) + index_map[:3, 3].reshape(3, 1, 1, 1)
    for order in (0, 1, 3):
        expected = ndimage.map_coordinates(array, coordinates, order=order, mode="nearest")
        found = resample_array(array, source, target, (10, 11, 12), order, None)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def on_the_grid_of(reference: Volume, volume: Volume, *, order: int, fill: float | None = None) -> np.ndarray:
    return resample_array(volume.array, volume.affine, reference.affine, reference.shape, order, fill)


def test_there_and_back_on_another_grid() -> None:
    volume = linear_volume((30, 20, 14))
    reference = resample_to_spacing(volume, (0.5, 0.5, 0.5), order=1)
    back = on_the_grid_of(volume, reference, order=1)
    inner = (slice(4, -4),) * 3
    np.testing.assert_allclose(back[inner], volume.array[inner], atol=0.05)
    labels = volume.with_array((volume.array > np.median(volume.array)).astype(np.uint8))
    fine = resample_to_spacing(labels, (0.4, 0.4, 0.5), order=0)
    np.testing.assert_array_equal(on_the_grid_of(labels, fine, order=0), labels.array)


def test_what_the_volume_does_not_cover_is_filled() -> None:
    volume = Volume(array=np.full((6, 5, 4), 100, np.int16), affine=np.diag([*SPACING_MM, 1.0]))
    affine = volume.affine.copy()
    affine[:3, 3] -= 2 * np.array(SPACING_MM)
    reference = Volume(array=np.zeros((10, 9, 8), np.uint8), affine=affine)
    for order in (0, 1):
        found = on_the_grid_of(reference, volume, order=order, fill=-1024.0)
        expected = np.full((10, 9, 8), -1024.0)
        expected[2:8, 2:7, 2:6] = 100
        np.testing.assert_array_equal(found, expected)
