"""Dice, surface Dice and HD95 per case and lesion type, and the table of two networks over subjects.

Empty masks. Prediction and truth both empty: every score is None, which means *not counted*. Only one of
them empty: Dice and surface Dice are 0, and HD95, which would be infinite, is None. The table counts the
cases whose truth has the lesion, the same for both networks; lesions drawn where there is none are counted
beside it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8
from scipy import ndimage

from promptlesion.data.dataset import Dataset, LesionType
from promptlesion.data.volume import read_volume
from promptlesion.evaluation.bootstrap import bootstrap_interval, paired_bootstrap
from promptlesion.evaluation.results import CaseScoreRow, FalsePositiveRow, SegmentationRow


@dataclass(frozen=True)
class LesionScore:
    """Scores of one lesion type in one case; None where nothing is counted (see the module)."""

    case: str
    subject: str
    lesion_type: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    num_truth_voxels: int
    num_predicted_voxels: int


def evaluate_case(
    prediction: UInt8[np.ndarray, "_ _ _"],
    truth: UInt8[np.ndarray, "x y z"],
    lesion_types: Sequence[LesionType],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float = 2.0,
    *,
    case: str,
    subject: str,
) -> list[LesionScore]:
    """Score one predicted label map against the true one, one row per lesion type."""
    if prediction.shape != truth.shape:
        raise ValueError(f"{case}: prediction's shape {prediction.shape} differs from the truth's {truth.shape}")
    scores = []
    for lesion_type in lesion_types:
        predicted_mask, true_mask = prediction == lesion_type.label, truth == lesion_type.label
        num_predicted, num_true = int(predicted_mask.sum()), int(true_mask.sum())
        dice: float | None = None
        surface_dice: float | None = None
        hd95_mm: float | None = None
        if num_predicted and num_true:
            box = _bounding_box(predicted_mask | true_mask)
            predicted_mask, true_mask = predicted_mask[box], true_mask[box]
            dice = 2 * int((predicted_mask & true_mask).sum()) / (num_predicted + num_true)
            there, back = surface_distances_mm(predicted_mask, true_mask, spacing_mm)
            num_close = int((there <= tolerance_mm).sum() + (back <= tolerance_mm).sum())
            surface_dice = num_close / (len(there) + len(back))
            hd95_mm = float(max(np.percentile(there, 95), np.percentile(back, 95)))
        elif num_predicted or num_true:
            dice = surface_dice = 0.0
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
            )
        )
    return scores


def evaluate_folder(dataset: Dataset, predictions: Path, *, tolerance_mm: float) -> list[LesionScore]:
    """Score the label maps of a folder against a dataset's own, case by case."""
    scores: list[LesionScore] = []
    for case in dataset.cases:
        truth = read_volume(case.label_path)
        path = predictions / f"{case.name}.nii.gz"
        prediction = read_volume(path)
        if prediction.shape != truth.shape or not np.allclose(prediction.affine, truth.affine, rtol=0, atol=1e-3):
            raise ValueError(f"{path}: expected the grid of {case.label_path}, {truth.shape}; found {prediction.shape}")
        scores += evaluate_case(
            prediction.array.astype(np.uint8),
            truth.array.astype(np.uint8),
            dataset.spec.lesions,
            truth.spacing_mm,
            tolerance_mm,
            case=case.name,
            subject=case.subject,
        )
    return scores


def surface_distances_mm(
    first: Bool[np.ndarray, "x y z"],
    second: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> tuple[Float64[np.ndarray, " first_surface"], Float64[np.ndarray, " second_surface"]]:
    """Distances from each surface voxel of one mask to the other's surface, both ways; neither may be empty.

    A surface voxel is a mask voxel with a face on the outside (the array's border is outside), as in MONAI.
    """
    first_surface = first & ~ndimage.binary_erosion(first)
    second_surface = second & ~ndimage.binary_erosion(second)
    there = ndimage.distance_transform_edt(~second_surface, sampling=spacing_mm)[first_surface]
    back = ndimage.distance_transform_edt(~first_surface, sampling=spacing_mm)[second_surface]
    return there, back


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
    return tuple(CaseScoreRow(trained_on=trained_on, **vars(score)) for score in scores)


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
    box: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return box
