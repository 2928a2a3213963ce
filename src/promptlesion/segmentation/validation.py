"""The figure that selects the weights: Dice of each lesion type on whole validation scans."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.inference import predict_labels
from promptlesion.training.launch import all_reduced_sum, num_processes, process_rank


def check_validation_lesions(cases: Sequence[CachedCase], spec: DatasetSpec) -> None:
    """Refuse validation cases without a single lesion, which could not tell good weights from bad ones.

    Raises:
        ValueError: names the cases and the lesion types.
    """
    if not cases:
        raise ValueError(
            "validation cases: expected some, to select the weights by; found none. data.validation_fraction, or the "
            "dataset's splits_final.json, leaves them out"
        )
    if not any(lesion.label in case.num_label_voxels for case in cases for lesion in spec.lesions):
        raise ValueError(
            f"validation cases: expected a lesion of {', '.join(lesion.name for lesion in spec.lesions)} in "
            f"one of them, to select the weights by; found none in {[case.name for case in cases]}"
        )


def validation_dice(
    network: nn.Module,
    cases: Sequence[CachedCase],
    *,
    spec: DatasetSpec,
    config: SegmentationConfig,
    label_values: tuple[int, ...],
    device: torch.device,
    ignored: int | None = None,
) -> dict[str, float]:
    """Predict every case and return the mean Dice by lesion type, over the cases that have a lesion of it.

    A type that no case has is left out, and so are voxels of the value `ignored`. The network is put into evaluation
    mode; nothing random is drawn. Several processes share the cases, and all return the same.
    """
    network.eval()
    dice = torch.zeros(len(cases), len(spec.lesions), dtype=torch.float64)
    for index in range(process_rank(), len(cases), num_processes()):
        case = cases[index]
        predicted = predict_labels(
            network,
            case.image,
            spec=spec,
            patch_voxels=config.patch_voxels,
            overlap=config.window_overlap,
            label_values=label_values,
            device=device,
            precision=config.precision,
        )
        truth = np.asarray(case.labels)
        if ignored is not None:
            predicted[truth == ignored] = 0
        for column, lesion in enumerate(spec.lesions):
            if lesion.label in case.num_label_voxels:
                dice[index, column] = _dice(predicted == lesion.label, truth == lesion.label)
    dice = all_reduced_sum(dice)
    means = {}
    for column, lesion in enumerate(spec.lesions):
        rows = [row for row, case in enumerate(cases) if lesion.label in case.num_label_voxels]
        if rows:
            means[lesion.name] = dice[rows, column].mean().item()
    return means


def mean_over_types(dice: Mapping[str, float]) -> float:
    """Return the mean over lesion types, each counting the same however many cases have it."""
    return float(np.mean(list(dice.values())))


def _dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    return 2.0 * int((predicted & truth).sum()) / (int(predicted.sum()) + int(truth.sum()))
