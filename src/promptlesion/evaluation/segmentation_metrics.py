"""Scores of a predicted label map per case and lesion type.

Empty masks. Prediction and truth both empty: every score is None, which means *not counted*. Only one of
them empty: Dice and surface Dice are 0, and HD95, which would be infinite, is None. The volume error is None without
a truth, and 100 % without a prediction. Tables count the cases whose truth has the lesion, the same for all
networks; lesions drawn where there is none are counted beside it, as false positives per scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from promptlesion.data.case_check import checked_labels, on_the_grid_of
from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.volume import read_volume
from promptlesion.evaluation.lesion_matching import PredictedLesion, TrueLesion, match_lesions
from promptlesion.evaluation.surface_scores import find_surface, surface_scores


@dataclass(frozen=True)
class LesionScore:
    """Scores of one lesion type in one case; None where nothing is counted (see the module).

    `true_lesions` and `predicted_lesions` are its single lesions, see `lesion_matching`.
    """

    case: str
    subject: str
    lesion_type: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    num_truth_voxels: int
    num_predicted_voxels: int
    true_lesions: tuple[TrueLesion, ...] = ()
    predicted_lesions: tuple[PredictedLesion, ...] = ()

    @property
    def volume_error_percent(self) -> float | None:
        """How far the predicted volume is from the true one, without sign; None where there is no truth."""
        if not self.num_truth_voxels:
            return None
        return 100 * abs(self.num_predicted_voxels - self.num_truth_voxels) / self.num_truth_voxels


def evaluate_case(
    prediction: UInt8[np.ndarray, "_ _ _"],
    truth: UInt8[np.ndarray, "x y z"],
    lesion_types: Sequence[LesionType],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = 2.0,
    *,
    case: str,
    subject: str,
    ignored: int | None = None,
) -> list[LesionScore]:
    """Score one predicted label map against the true one, one row per lesion type.

    Where the truth has the value `ignored`, nobody looked, and what was predicted does not count.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"{case}: prediction's shape {prediction.shape} differs from the truth's {truth.shape}")
    if ignored is not None:
        prediction = np.where(truth == ignored, np.uint8(0), prediction)
    scores = []
    for lesion_type in lesion_types:
        predicted_mask, true_mask = prediction == lesion_type.label, truth == lesion_type.label
        num_predicted, num_true = int(predicted_mask.sum()), int(true_mask.sum())
        dice: float | None = None
        surface_dice: float | None = None
        hd95_mm: float | None = None
        true_lesions: tuple[TrueLesion, ...] = ()
        predicted_lesions: tuple[PredictedLesion, ...] = ()
        if num_predicted or num_true:
            box = _bounding_box(predicted_mask | true_mask)
            predicted_mask, true_mask = predicted_mask[box], true_mask[box]
            dice = 2 * int((predicted_mask & true_mask).sum()) / (num_predicted + num_true)
            surface_dice = 0.0
            true_lesions, predicted_lesions = match_lesions(
                predicted_mask, true_mask, spacing_mm, tolerance_mm=tolerance_mm
            )
        if num_predicted and num_true:
            surfaces = (find_surface(mask, spacing_mm) for mask in (predicted_mask, true_mask))
            surface_dice, hd95_mm = surface_scores(*surfaces, tolerance_mm=tolerance_mm)
        scores.append(
            LesionScore(
                case=case,
                subject=subject,
                lesion_type=lesion_type.name,
                dice=dice,
                surface_dice=surface_dice,
                hd95_mm=hd95_mm,
                num_truth_voxels=num_true,
                num_predicted_voxels=num_predicted,
                true_lesions=true_lesions,
                predicted_lesions=predicted_lesions,
            )
        )
    return scores


def evaluate_folder(dataset: Dataset, predictions: Path, *, tolerance_mm: float) -> list[LesionScore]:
    """Score the label maps of a folder against a dataset's own, case by case."""
    scores: list[LesionScore] = []
    for case in dataset.cases:
        truth = read_volume(case.label_path)
        path = predictions / f"{case.name}.nii.gz"
        place = f"{path}: expected the grid of {case.label_path}"
        prediction = on_the_grid_of(place, truth, read_volume(path), of="the truth")
        scores += evaluate_case(
            checked_labels(str(path), prediction.array, dataset.labels.values()),
            checked_labels(case.name, truth.array, dataset.labels.values()),
            dataset.spec.lesions,
            truth.spacing_mm,
            tolerance_mm,
            case=case.name,
            subject=case.subject,
            ignored=dataset.ignored_label,
        )
    return scores


def _bounding_box(mask: Bool[np.ndarray, "x y z"]) -> tuple[slice, ...]:
    sides = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
