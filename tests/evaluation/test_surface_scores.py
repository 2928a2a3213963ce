"""Surface Dice and HD95 with unequal spacing: DeepMind's `surface-distance`, MONAI, and known values."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from surface_distance import metrics as deepmind

from promptlesion.evaluation.surface_scores import find_surface, surface_scores

SPACINGS_MM = [(0.7, 1.1, 2.5), (1.0, 1.0, 1.0), (0.43, 0.39, 3.0)]


def _blobs(seed: int, shape: tuple[int, int, int] = (23, 31, 17), level: float = 0.03) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 2) > level


def _specks(seed: int, shape: tuple[int, int, int] = (11, 14, 9)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.03


def _scores(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple, tolerance_mm: float) -> tuple[float, float]:
    surfaces = [find_surface(mask, spacing_mm) for mask in (prediction, truth)]
    return surface_scores(*surfaces, tolerance_mm=tolerance_mm)


@pytest.mark.filterwarnings("ignore")  # the others' own
@pytest.mark.parametrize("make", [_blobs, _specks])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("tolerance_mm", [0.7, 2.0])
def test_agrees_with_deepmind_and_monai(make, seed: int, spacing_mm: tuple, tolerance_mm: float) -> None:
    prediction, truth = make(seed), make(seed + 100)
    surface_dice, hd95_mm = _scores(prediction, truth, spacing_mm, tolerance_mm)
    distances = deepmind.compute_surface_distances(truth, prediction, spacing_mm)
    expected = deepmind.compute_surface_dice_at_tolerance(distances, tolerance_mm)
    assert surface_dice == pytest.approx(float(expected), abs=1e-6)
    assert hd95_mm == pytest.approx(float(deepmind.compute_robust_hausdorff(distances, 95)), abs=1e-6)
    one_hot = [torch.from_numpy(mask[None, None]) for mask in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing_mm}
    expected = compute_surface_dice(*one_hot, class_thresholds=[tolerance_mm], use_subvoxels=True, **options)
    assert surface_dice == pytest.approx(float(expected), abs=1e-6)
    # MONAI's HD95 counts rim voxels: another surface, at most a voxel's diagonal away.
    expected = compute_hausdorff_distance(*one_hot, percentile=95, **options)
    assert hd95_mm == pytest.approx(float(expected), abs=math.hypot(*spacing_mm))


def test_the_area_of_a_box_is_known() -> None:
    """Faces, less what the rounded edges and corners cut off, which the true area lies above by little."""
    mask = np.zeros((30, 24, 14), dtype=bool)
    mask[2:26, 3:21, 2:12] = True
    spacing_mm = (0.7, 1.1, 2.5)
    a, b, c = (side * mm for side, mm in zip((24, 18, 10), spacing_mm, strict=True))
    area = float(find_surface(mask, spacing_mm).areas_mm2.sum())
    assert 0.9 * 2 * (a * b + b * c + c * a) < area < 2 * (a * b + b * c + c * a)


def test_identity_symmetry_and_a_known_shift() -> None:
    truth = np.zeros((20, 14, 12), dtype=bool)
    truth[4:12, 3:8, 2:6] = True
    spacing_mm = SPACINGS_MM[0]
    assert _scores(truth, truth, spacing_mm, 0.0) == (1.0, 0.0)
    moved = np.roll(truth, 3, axis=0)
    # 3 x 0.7 mm is 2.1 mm, also where the last bit of the product says otherwise.
    assert _scores(moved, truth, spacing_mm, 2.1) == (1.0, pytest.approx(2.1))
    assert _scores(moved, truth, spacing_mm, 2.0)[0] < 1
    assert _scores(moved, truth, spacing_mm, 1.0) == pytest.approx(_scores(truth, moved, spacing_mm, 1.0))
