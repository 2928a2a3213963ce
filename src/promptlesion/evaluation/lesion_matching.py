"""Lesion by lesion: which true lesions were found, how well, and which predicted ones are false.

Lesions are 26-connected components of one type. A true lesion is *found* if the prediction of its own type covers a
tenth of it; a predicted one is *right* if a tenth of it lies in true lesions of its type. The tenth keeps a voxel that
touches by chance from being a find, and a blob over half the organ from being right.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage
from scipy.spatial import KDTree

from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS, sphere_diameter_mm
from promptlesion.evaluation.surface_scores import find_surface, surface_scores

MIN_COVERED_SHARE = 0.1
"""Share of a lesion that must be covered for it to count as found, or as right."""


@dataclass(frozen=True)
class TrueLesion:
    """One true lesion against the predicted voxels that belong to it.

    The voxels of predicted lesions that touch a true one each belong to the true lesion nearest to them, so that one
    prediction over two lesions is shared out. Where none belongs to a lesion, Dice and surface Dice are 0, the volume
    error is 100 %, and HD95 is None: not counted.
    """

    diameter_mm: float
    is_found: bool
    dice: float
    surface_dice: float
    hd95_mm: float | None
    volume_error_percent: float


@dataclass(frozen=True)
class PredictedLesion:
    """One predicted lesion; a false positive where `is_right` is not so."""

    diameter_mm: float
    is_right: bool


def match_lesions(
    prediction: Bool[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    *,
    tolerance_mm: float,
) -> tuple[tuple[TrueLesion, ...], tuple[PredictedLesion, ...]]:
    """Match the lesions of one type in one scan; either mask may be empty."""
    true_labels, num_true = ndimage.label(truth, structure=ALL_26_NEIGHBOURS)
    predicted_labels, num_predicted = ndimage.label(prediction, structure=ALL_26_NEIGHBOURS)
    voxel_mm3 = float(np.prod(spacing_mm))
    true_sizes = np.bincount(true_labels[truth], minlength=num_true + 1)[1:]
    predicted_sizes = np.bincount(predicted_labels[prediction], minlength=num_predicted + 1)[1:]
    covered = np.bincount(true_labels[prediction], minlength=num_true + 1)[1:]
    inside = np.bincount(predicted_labels[truth], minlength=num_predicted + 1)[1:]
    predicted = tuple(
        PredictedLesion(sphere_diameter_mm(size * voxel_mm3), bool(right >= MIN_COVERED_SHARE * size))
        for size, right in zip(predicted_sizes.tolist(), inside.tolist(), strict=True)
    )
    touching = prediction & np.concatenate([[False], inside > 0])[predicted_labels]
    owners = _nearest_lesion(touching, true_labels, spacing_mm)
    true_boxes, owned_boxes = ndimage.find_objects(true_labels), ndimage.find_objects(owners, num_true)
    lesions = []
    for index, (size, share) in enumerate(zip(true_sizes.tolist(), covered.tolist(), strict=True)):
        dice, surface_dice, error, hd95_mm = 0.0, 0.0, 100.0, None
        if owned_boxes[index] is not None:
            box = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop))
                for a, b in zip(true_boxes[index], owned_boxes[index], strict=True)
            )
            own, lesion = owners[box] == index + 1, true_labels[box] == index + 1
            num_own = int(own.sum())
            dice = 2 * int((own & lesion).sum()) / (num_own + size)
            error = 100 * abs(num_own - size) / size
            surface_dice, hd95_mm = surface_scores(
                find_surface(own, spacing_mm), find_surface(lesion, spacing_mm), tolerance_mm=tolerance_mm
            )
        lesions.append(
            TrueLesion(
                diameter_mm=sphere_diameter_mm(size * voxel_mm3),
                is_found=share >= MIN_COVERED_SHARE * size,
                dice=dice,
                surface_dice=surface_dice,
                hd95_mm=hd95_mm,
                volume_error_percent=error,
            )
        )
    return tuple(lesions), predicted


def _nearest_lesion(
    mask: Bool[np.ndarray, "x y z"], true_labels: Int32[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> Int32[np.ndarray, "x y z"]:
    """Number every voxel of the mask by the true lesion nearest to it, the rest 0."""
    owners = np.where(mask, true_labels, 0).astype(np.int32)
    beside = np.argwhere(mask & (true_labels == 0))
    if len(beside):
        true_voxels = np.argwhere(true_labels)
        _, nearest = KDTree(true_voxels * np.array(spacing_mm)).query(beside * np.array(spacing_mm))
        owners[tuple(beside.T)] = true_labels[tuple(true_voxels[nearest].T)]
    return owners
