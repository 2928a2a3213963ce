"""Scores of a predicted label map per case and lesion type, and the demo's table of two networks over subjects.

Empty masks. Prediction and truth both empty: every score is None, which means *not counted*. Only one of
them empty: Dice and surface Dice are 0, and HD95, which would be infinite, is None. The volume error is None without
a truth, and 100 % without a prediction. Tables count the cases whose truth has the lesion, the same for all
networks; lesions drawn where there is none are counted beside it, as false positives per scan.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from promptlesion.data.case_check import checked_labels, on_the_grid_of
from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.volume import read_volume
from promptlesion.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from promptlesion.evaluation.lesion_matching import PredictedLesion, TrueLesion, match_lesions
from promptlesion.evaluation.results import CaseScoreRow, FalsePositiveRow, SegmentationRow
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


def segmentation_rows(
    real: Iterable[LesionScore],
    mixed: Iterable[LesionScore],
    *,
    seed: int,
    tolerance_mm: float = 2.0,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[SegmentationRow, ...]:
    """Compare two networks on the same cases: mean over subjects of the mean over a subject's cases.

    Counted are the cases whose truth has the lesion. Intervals are over subjects, the difference is paired.
    """
    pairs = _paired(real, mixed)
    rows = []
    for lesion_type in dict.fromkeys(first.lesion_type for first, _ in pairs):
        counted = [pair for pair in pairs if pair[0].lesion_type == lesion_type and pair[0].num_truth_voxels]
        metrics: tuple[tuple[Literal["dice", "surface_dice"], str], ...] = (
            ("dice", "Dice"),
            ("surface_dice", f"surface Dice ({tolerance_mm:g} mm)"),
        )
        for attribute, metric in metrics:
            firsts = _subject_means([first for first, _ in counted], attribute)
            seconds = _subject_means([second for _, second in counted], attribute)
            options = {"seed": seed, "num_resamples": num_resamples}
            rows.append(
                SegmentationRow(
                    lesion_type=lesion_type,
                    metric=metric,
                    num_subjects=len(firsts),
                    num_cases=len(counted),
                    real=bootstrap_interval(firsts, level=level, **options),
                    mixed=bootstrap_interval(seconds, level=level, **options),
                    difference=paired_bootstrap(firsts, seconds, level=level, **options),
                )
            )
    return tuple(rows)


def false_positive_rows(real: Iterable[LesionScore], mixed: Iterable[LesionScore]) -> tuple[FalsePositiveRow, ...]:
    """Count, over the cases without a lesion of a type, those where each network drew one."""
    pairs = _paired(real, mixed)
    rows = []
    for lesion_type in dict.fromkeys(first.lesion_type for first, _ in pairs):
        clean = [pair for pair in pairs if pair[0].lesion_type == lesion_type and not pair[0].num_truth_voxels]
        rows.append(
            FalsePositiveRow(
                lesion_type=lesion_type,
                num_cases=len(clean),
                num_real=sum(first.num_predicted_voxels > 0 for first, _ in clean),
                num_mixed=sum(second.num_predicted_voxels > 0 for _, second in clean),
            )
        )
    return tuple(rows)


def case_score_rows(trained_on: str, scores: Iterable[LesionScore]) -> tuple[CaseScoreRow, ...]:
    """Put raw scores into the form of the results; `trained_on` is 'real' or 'mixed'."""
    own = {*CaseScoreRow.model_fields} - {"trained_on"}  # single lesions are not part of the results
    return tuple(
        CaseScoreRow(trained_on=trained_on, **{name: getattr(score, name) for name in own}) for score in scores
    )


def _paired(real: Iterable[LesionScore], mixed: Iterable[LesionScore]) -> list[tuple[LesionScore, LesionScore]]:
    firsts = {(score.lesion_type, score.case): score for score in real}
    seconds = {(score.lesion_type, score.case): score for score in mixed}
    if firsts.keys() != seconds.keys():
        odd = sorted(firsts.keys() ^ seconds.keys())[:3]
        raise ValueError(f"scores: expected the same cases and lesion types from both networks, differing: {odd}")
    return [(first, seconds[key]) for key, first in firsts.items()]


def _subject_means(
    scores: Sequence[LesionScore], attribute: Literal["dice", "surface_dice"]
) -> Float64[np.ndarray, " subjects"]:
    by_subject: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        value: float | None = getattr(score, attribute)
        if value is None:
            raise ValueError(f"{score.case}: {attribute} of {score.lesion_type} is not counted, yet has a truth")
        by_subject[score.subject].append(value)
    return np.array([np.mean(values) for values in by_subject.values()], dtype=np.float64)


def _bounding_box(mask: Bool[np.ndarray, "x y z"]) -> tuple[slice, ...]:
    sides = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
