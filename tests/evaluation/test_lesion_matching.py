"""Lesion by lesion: found, shared out, false, and the scores of single lesions."""

import math

import numpy as np
import pytest

from promptlesion.evaluation.lesion_matching import match_lesions

SPACING_MM = (0.5, 1.0, 2.0)  # a voxel of 1 mm³


def _mask(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((40, 20, 12), dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


FIRST = np.s_[2:8, 2:6, 2:5]  # 72 voxels
SECOND = np.s_[20:26, 2:6, 2:5]
THIRD = np.s_[30:32, 14:16, 8:10]  # 8 voxels
ELSEWHERE = np.s_[2:5, 14:17, 8:11]  # 27 voxels


def test_found_missed_and_false() -> None:
    truth = _mask(FIRST, SECOND)
    prediction = _mask(FIRST, ELSEWHERE)
    true, predicted = match_lesions(prediction, truth, SPACING_MM, tolerance_mm=2.0)
    assert [lesion.is_found for lesion in true] == [True, False]
    assert (true[0].dice, true[0].surface_dice, true[0].hd95_mm, true[0].volume_error_percent) == (1.0, 1.0, 0.0, 0.0)
    assert (true[1].dice, true[1].surface_dice, true[1].hd95_mm, true[1].volume_error_percent) == (0, 0, None, 100.0)
    assert sorted(lesion.is_right for lesion in predicted) == [False, True]
    assert true[0].diameter_mm == pytest.approx(math.cbrt(6 * 72 / math.pi))
    assert min(lesion.diameter_mm for lesion in predicted) == pytest.approx(math.cbrt(6 * 27 / math.pi))


def test_one_prediction_over_two_lesions_is_shared_out() -> None:
    truth = _mask(np.s_[4:10, 2:6, 2:5], np.s_[12:18, 2:6, 2:5])
    prediction = _mask(np.s_[4:18, 2:6, 2:5])
    true, predicted = match_lesions(prediction, truth, SPACING_MM, tolerance_mm=0.1)
    assert [lesion.is_right for lesion in predicted] == [True]
    # The two layers between them go one to each: 84 voxels for 72.
    assert [lesion.dice for lesion in true] == pytest.approx([2 * 72 / (72 + 84)] * 2)
    assert [lesion.volume_error_percent for lesion in true] == pytest.approx([100 * 12 / 72] * 2)


def test_a_lesion_predicted_in_pieces_is_one_lesion_found() -> None:
    truth = _mask(FIRST)
    prediction = _mask(np.s_[2:4, 2:6, 2:5], np.s_[6:8, 2:6, 2:5])
    (lesion,), predicted = match_lesions(prediction, truth, SPACING_MM, tolerance_mm=2.0)
    assert lesion.is_found and lesion.dice == pytest.approx(2 * 48 / (48 + 72))
    assert [piece.is_right for piece in predicted] == [True, True]


def test_a_touch_is_no_find_and_a_blob_over_everything_is_not_right() -> None:
    truth = _mask(FIRST, THIRD)
    (first, _), predicted = match_lesions(_mask(np.s_[2:3, 2:3, 2:5]), truth, SPACING_MM, tolerance_mm=2.0)
    assert not first.is_found and 0 < first.dice < 0.1  # 3 of 72 voxels
    assert [lesion.is_right for lesion in predicted] == [True]
    true, predicted = match_lesions(np.ones_like(truth), truth, SPACING_MM, tolerance_mm=2.0)
    assert [lesion.is_found for lesion in true] == [True, True]
    assert [lesion.is_right for lesion in predicted] == [False]  # 80 of 9600 voxels


def test_empty_masks() -> None:
    nothing, something = _mask(), _mask(FIRST)
    assert match_lesions(nothing, nothing, SPACING_MM, tolerance_mm=2.0) == ((), ())
    true, predicted = match_lesions(something, nothing, SPACING_MM, tolerance_mm=2.0)
    assert true == () and [lesion.is_right for lesion in predicted] == [False]
    true, predicted = match_lesions(nothing, something, SPACING_MM, tolerance_mm=2.0)
    assert predicted == () and [lesion.is_found for lesion in true] == [False]


def test_turning_the_scan_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    truth = _mask(FIRST, SECOND, THIRD)
    prediction = np.roll(truth, (1, 1, 0), axis=(0, 1, 2)) | (generator.random(truth.shape) < 0.002)
    straight = match_lesions(prediction, truth, SPACING_MM, tolerance_mm=1.0)
    turned = match_lesions(
        np.ascontiguousarray(prediction.transpose(2, 0, 1)),
        np.ascontiguousarray(truth.transpose(2, 0, 1)),
        (SPACING_MM[2], SPACING_MM[0], SPACING_MM[1]),
        tolerance_mm=1.0,
    )
    for mine, others in zip(straight, turned, strict=True):
        assert sorted(map(str, mine)) == sorted(map(str, others))
