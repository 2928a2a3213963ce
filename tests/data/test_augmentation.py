from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest

from promptlesion.data.augmentation import (
    Augmentation,
    IntensityChange,
    add_noise,
    bend_gamma,
    blur,
    shift_brightness,
    stretch_contrast,
    warped_patch,
)
from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec

SPACING_MM = (0.7, 1.0, 2.5)
AIR_HU = -1024


def augmentation(
    *,
    mirror: float = 0.5,
    rotation: float = 0.0,
    scaling: float = 0.0,
    changes: Sequence[tuple[float, IntensityChange]] = (),
) -> Augmentation:
    return Augmentation(
        mirror_probability=mirror,
        rotation_probability=rotation,
        max_rotation_degrees=30.0,
        scaling_probability=scaling,
        scaling_range=(0.7, 1.4),
        intensity_changes=tuple(changes),
    )


def random_patch(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (14, 12, 10)).astype(np.float32)


@pytest.mark.parametrize("start", [(9, 8, 7), (-6, 20, 3)])
def test_warped_patch_is_what_scipy_makes_of_the_whole_scan(start: tuple[int, int, int]) -> None:
    """Within the scan, and where the patch reaches beyond it: as if air went on for ever."""
    generator = np.random.default_rng(0)
    image = generator.integers(-900, 900, (31, 34, 23)).astype(np.int16)
    labels = generator.integers(0, 6, image.shape).astype(np.uint8)
    size = (12, 10, 8)
    warp = augmentation(rotation=1.0, scaling=1.0).draw_warp(SPACING_MM, generator)
    assert warp is not None
    found_hu, found_labels = warped_patch(image, labels, start=start, size=size, warp=warp, fill_hu=AIR_HU)

    margin = 40
    centre = np.array(start) + (np.array(size) - 1) / 2
    offset = centre + margin - warp @ ((np.array(size) - 1) / 2)
    wide_hu, wide_labels = np.pad(image, margin, constant_values=AIR_HU), np.pad(labels, margin)
    expected_hu = affine_transform(wide_hu, warp, offset, output_shape=size, output=np.float64, order=1)
    expected_labels = affine_transform(wide_labels, warp, offset, output_shape=size, order=0)
    np.testing.assert_allclose(found_hu, expected_hu, atol=0.1)
    assert (found_labels == expected_labels).mean() > 0.99  # halfway between two voxels, either is nearest


def test_quarter_turn_is_a_transposition_and_a_flip() -> None:
    cube = np.random.default_rng(0).integers(-900, 900, (9, 9, 9)).astype(np.int16)
    turn = Rotation.from_euler("z", np.pi / 2).as_matrix()
    hu, labels = warped_patch(
        cube, (cube > 0).astype(np.uint8), start=(0, 0, 0), size=(9, 9, 9), warp=turn, fill_hu=AIR_HU
    )
    np.testing.assert_allclose(hu, np.rot90(cube, -1, axes=(0, 1)), atol=0.1)
    assert np.array_equal(labels, hu > 0.5)


def test_turns_are_rigid_and_scalings_even_in_millimetres() -> None:
    generator, millimetres = np.random.default_rng(1), np.diag(SPACING_MM)
    turning, scaling = augmentation(rotation=1.0), augmentation(scaling=1.0)
    for _ in range(50):
        turned, scaled = (kind.draw_warp(SPACING_MM, generator) for kind in (turning, scaling))
        assert turned is not None and scaled is not None
        in_mm = millimetres @ turned @ np.linalg.inv(millimetres)
        np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(in_mm) == pytest.approx(1.0)
        assert np.trace(in_mm) >= 1.0  # three turns of 30 degrees are never a turn of more than 90
        np.testing.assert_allclose(scaled, np.eye(3) * scaled[0, 0])
        assert 1 / 1.4 <= scaled[0, 0] <= 1 / 0.7


def test_larger_means_larger() -> None:
    """A ball of radius 5 in a patch scaled by 1.4 has radius 7."""
    distance = np.linalg.norm(np.indices((40, 40, 40)).T - 19.5, axis=-1).T
    ball = (distance <= 5).astype(np.uint8)
    _, labels = warped_patch(
        ball.astype(np.int16), ball, start=(10, 10, 10), size=(20, 20, 20), warp=np.eye(3) / 1.4, fill_hu=AIR_HU
    )
    assert np.cbrt(labels.sum() / ball.sum()) == pytest.approx(1.4, rel=0.03)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_change_happens_as_often_as_asked_for(probability: float) -> None:
    def marked(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return image + np.float32(0.01)

    both = augmentation(rotation=probability, changes=[(probability, marked)])
    generator, image, num_draws = np.random.default_rng(0), random_patch(), 400
    num_warped = sum(both.draw_warp(SPACING_MM, generator) is not None for _ in range(num_draws))
    num_changed = sum(both.change_intensity(image, generator) is not image for _ in range(num_draws))
    for number in (num_warped, num_changed):
        assert binomtest(number, num_draws, probability).pvalue > 0.01


def test_patches_stay_within_the_window() -> None:
    bright = augmentation(changes=[(1.0, partial(shift_brightness, max_shift=5.0))])
    for seed in range(10):
        changed = bright.change_intensity(random_patch(), np.random.default_rng(seed))
        assert changed.dtype == np.float32
        assert np.abs(changed).max() <= 1.0


def test_noise_is_white_and_no_stronger_than_asked_for() -> None:
    image = np.zeros((30, 30, 30), dtype=np.float32)
    for seed in range(20):
        noise = add_noise(image, np.random.default_rng(seed), max_std=0.1)
        assert noise.std() <= 0.102
        assert abs(noise.mean()) < 4 * 0.1 / np.sqrt(noise.size)
        assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.03


def test_blur_keeps_the_mean_and_takes_the_detail() -> None:
    image = random_patch()
    found = blur(image, np.random.default_rng(0), sigma_voxels=(1.0, 1.0))
    assert found.mean() == pytest.approx(image.mean(), abs=0.02)
    assert found.std() < 0.3 * image.std()


def test_brightness_moves_all_voxels_alike() -> None:
    image = random_patch()
    moved = shift_brightness(image, np.random.default_rng(0), max_shift=0.1) - image
    assert np.ptp(moved) < 1e-6
    assert 0 < abs(moved.mean()) <= 0.1


def test_contrast_keeps_the_mean_and_scales_the_spread() -> None:
    image = random_patch()
    found = stretch_contrast(image, np.random.default_rng(0), factor_range=(0.5, 0.5))
    assert found.mean() == pytest.approx(image.mean(), abs=1e-6)
    assert found.std() == pytest.approx(0.5 * image.std(), rel=1e-5)


def test_gamma_keeps_the_ends_of_the_window_and_the_order() -> None:
    ramp = np.linspace(-1, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    found = bend_gamma(ramp, np.random.default_rng(0), gamma_range=(2.0, 2.0)).ravel()
    assert (found[0], found[-1]) == (-1.0, 1.0)
    assert (np.diff(found) > 0).all()
    assert found[13] == pytest.approx(-0.5)  # the middle of the window, 1/2, squared


def batches(cases: list[CachedCase], spec: DatasetSpec, varied: Augmentation | None) -> PatchBatches:
    return PatchBatches(cases, spec=spec, patch_voxels=16, batch_size=4, seed=3, augmentation=varied)


def test_an_item_depends_on_its_step_and_number_alone(tiny_cases: list[CachedCase], tiny_spec: DatasetSpec) -> None:
    changes = [(0.5, partial(add_noise, max_std=0.1)), (0.5, partial(bend_gamma, gamma_range=(0.7, 1.5)))]
    drawing = batches(tiny_cases, tiny_spec, augmentation(rotation=0.5, scaling=0.5, changes=changes))
    whole = drawing.draw(5)
    drawing.draw(6)
    part = drawing.draw(5, range(2, 4))
    assert torch.equal(whole.image[2:], part.image)
    assert torch.equal(whole.labels[2:], part.labels)
    assert set(whole.labels.unique().tolist()) <= {0, 1, 2, 3}
    assert torch.equal(whole.lesion_mask, whole.labels >= 2)


def test_without_augmentation_patches_are_mirrored_and_nothing_else(
    tiny_cases: list[CachedCase], tiny_spec: DatasetSpec
) -> None:
    plain, mirrored = batches(tiny_cases, tiny_spec, None), batches(tiny_cases, tiny_spec, augmentation())
    still = batches(tiny_cases, tiny_spec, augmentation(mirror=0.0))
    for step in range(3):
        assert torch.equal(plain.draw(step).image, mirrored.draw(step).image)
        for image, as_is in zip(plain.draw(step).image, still.draw(step).image, strict=True):
            flips = [[axis for axis in (1, 2, 3) if number >> axis & 1] for number in range(0, 16, 2)]
            assert any(torch.equal(image, as_is.flip(axes)) for axes in flips)
