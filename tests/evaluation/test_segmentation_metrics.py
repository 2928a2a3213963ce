"""Scores per case and type: against MONAI, known values, and how empty masks are counted."""

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from scipy import ndimage

from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.volume import read_volume
from promptlesion.evaluation.segmentation_metrics import (
    LesionScore,
    evaluate_case,
    evaluate_folder,
)

SPACING_MM = (0.7, 1.1, 2.5)
HARD = LesionType(name="hard", label=3, host=("wall",), diameter_mm=(1, 6), hu=(130, 1300))
SOFT = LesionType(name="soft", label=4, host=("wall",), diameter_mm=(1, 6), hu=(-50, 130))


def _score(prediction: np.ndarray, truth: np.ndarray, tolerance_mm: float = 2.0) -> LesionScore:
    (score,) = evaluate_case(prediction, truth, [HARD], SPACING_MM, tolerance_mm, case="a", subject="s")
    return score


@pytest.mark.filterwarnings("ignore")  # MONAI's own
@pytest.mark.parametrize("seed", range(4))
def test_dice_agrees_with_monai(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(2, 23, 31, 17))
    prediction, truth = (ndimage.gaussian_filter(noise, (0, 2, 2, 2)) > 0.03).astype(np.uint8) * np.uint8(3)
    one_hot = [torch.from_numpy(array[None, None] == 3) for array in (prediction, truth)]
    assert _score(prediction, truth).dice == pytest.approx(float(compute_dice(*one_hot)), abs=1e-6)


def test_identity_and_translate() -> None:
    truth = np.zeros((20, 14, 12), dtype=np.uint8)
    truth[4:12, 3:8, 2:6] = 3
    same = _score(truth, truth)
    assert (same.dice, same.surface_dice, same.hd95_mm) == (1.0, 1.0, 0.0)
    moved = _score(np.roll(truth, 2, axis=0), truth, tolerance_mm=1.5)
    assert moved.dice == pytest.approx(6 / 8)  # two of eight layers moved out
    assert moved.surface_dice == 1.0  # 2 voxels of 0.7 mm are within 1.5 mm
    assert _score(np.roll(truth, 2, axis=2), truth, tolerance_mm=1.5).surface_dice < 1  # 5 mm are not


def test_empty_masks() -> None:
    nothing = np.zeros((9, 8, 7), dtype=np.uint8)
    something = nothing.copy()
    something[2:5, 2:5, 2:5] = 3
    both, missed, invented = (
        _score(*pair) for pair in ((nothing, nothing), (nothing, something), (something, nothing))
    )
    assert both == LesionScore("a", "s", "hard", None, None, None, 0, 0)
    assert (missed.dice, missed.surface_dice, missed.hd95_mm) == (0.0, 0.0, None)
    assert (invented.dice, invented.surface_dice, invented.hd95_mm) == (0.0, 0.0, None)
    assert [score.volume_error_percent for score in (both, missed, invented)] == [None, 100.0, None]
    assert [len(score.true_lesions) for score in (both, missed, invented)] == [0, 1, 0]
    assert [len(score.predicted_lesions) for score in (both, missed, invented)] == [0, 0, 1]


def test_volume_error_has_no_sign() -> None:
    truth = np.zeros((20, 14, 12), dtype=np.uint8)
    truth[4:12, 3:8, 2:6] = 3
    for layers, percent in ((4, 50.0), (10, 25.0)):
        prediction = np.zeros_like(truth)
        prediction[4 : 4 + layers, 3:8, 2:6] = 3
        assert _score(prediction, truth).volume_error_percent == pytest.approx(percent)


def test_each_type_is_scored_by_its_own_label() -> None:
    truth = np.zeros((9, 8, 7), dtype=np.uint8)
    truth[1:4, 1:4, 1:4] = 3
    truth[5:8, 4:7, 3:6] = 4
    prediction = np.where(truth == 4, np.uint8(4), np.uint8(0))
    hard, soft = evaluate_case(prediction, truth, [HARD, SOFT], SPACING_MM, case="a", subject="s")
    assert (hard.lesion_type, hard.dice) == ("hard", 0.0)
    assert (soft.lesion_type, soft.dice) == ("soft", 1.0)


def test_different_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"case_7: prediction's shape \(3, 4, 5\) differs from the truth's"):
        evaluate_case(
            np.zeros((3, 4, 5), np.uint8),
            np.zeros((3, 4, 6), np.uint8),
            [HARD],
            SPACING_MM,
            case="case_7",
            subject="s",
        )


def test_folders_with_other_grids_or_labels_are_refused(tiny_data: Dataset, tmp_path: Path) -> None:
    part = tiny_data.select([tiny_data.cases[0].name])
    truth = read_volume(part.cases[0].label_path)
    wrong = truth.array.astype(np.uint8)
    wrong[0, 0, 0] = 77
    path = tmp_path / f"{part.cases[0].name}.nii.gz"
    nib.save(nib.Nifti1Image(wrong, truth.affine), path)
    with pytest.raises(ValueError, match=rf"{path.name}: expected the label values .* of dataset.json, found 77"):
        evaluate_folder(part, tmp_path, tolerance_mm=2.0)
    nib.save(nib.Nifti1Image(wrong[1:], truth.affine), path)
    with pytest.raises(ValueError, match=rf"{path.name}: expected the grid of"):
        evaluate_folder(part, tmp_path, tolerance_mm=2.0)


def test_a_whole_scan_takes_well_under_a_second() -> None:
    truth = np.zeros((150, 120, 90), dtype=np.uint8)
    truth[20:30, 30:45, 10:20] = 3
    truth[100:110, 80:95, 60:70] = 3
    started = time.perf_counter()
    evaluate_case(np.roll(truth, 1, axis=0), truth, [HARD, SOFT], SPACING_MM, case="a", subject="s")
    assert time.perf_counter() - started < 1.5


def test_what_is_predicted_where_nobody_looked_does_not_count() -> None:
    truth = np.zeros((12, 9, 7), dtype=np.uint8)
    truth[2:5, 2:5, 2:5], truth[6:] = 3, 9
    prediction = np.roll(truth, 1, axis=0)
    prediction[7:10, 3:6, 3:6] = 3
    (score,) = evaluate_case(prediction, truth, [HARD], SPACING_MM, case="a", subject="s", ignored=9)
    assert score == _score(np.where(truth == 9, 0, prediction).astype(np.uint8), truth)
    assert score.num_predicted_voxels == 27


@pytest.mark.parametrize("spoil", ["moved by 5 um", "values rescaled", "an axis more", "not compressed"])
def test_predictions_of_other_programs_score_as_ours(tiny_data: Dataset, tmp_path: Path, spoil: str) -> None:
    part = tiny_data.select([tiny_data.cases[0].name])
    stored = nib.load(part.cases[0].label_path)
    array, affine = np.asarray(stored.dataobj), stored.affine.copy()
    path = tmp_path / f"{part.cases[0].name}.nii.gz"
    if spoil == "moved by 5 um":
        affine[0, 3] += 0.005
    image = nib.Nifti1Image(array[..., None] if spoil == "an axis more" else array, affine)
    if spoil == "values rescaled":
        image = nib.Nifti1Image(array * np.float32(1.0000001), affine)
    if spoil == "not compressed":
        path.write_bytes(image.to_bytes())
    else:
        image.to_filename(path)
    scores = evaluate_folder(part, tmp_path, tolerance_mm=2.0)
    assert all(score.dice in (1.0, None) for score in scores)
    assert any(score.dice == 1.0 for score in scores)


def test_the_difference_of_a_prediction_on_another_grid_is_named(tiny_data: Dataset, tmp_path: Path) -> None:
    part = tiny_data.select([tiny_data.cases[0].name])
    stored = nib.load(part.cases[0].label_path)
    affine = stored.affine.copy()
    affine[0, 3] += 0.5
    nib.Nifti1Image(np.asarray(stored.dataobj), affine).to_filename(tmp_path / f"{part.cases[0].name}.nii.gz")
    with pytest.raises(
        ValueError, match=rf"{part.cases[0].name}.nii.gz: expected the grid of .*: label origin .* mm differs"
    ):
        evaluate_folder(part, tmp_path, tolerance_mm=2.0)
