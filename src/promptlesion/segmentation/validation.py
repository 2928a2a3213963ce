"""The figure that selects the weights: Dice of each lesion type on whole validation scans."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.inference import likeliest, predict_scores
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.training.launch import all_reduced_sum, num_processes, process_rank


def validation_dice(
    network: nn.Module,
    cases: Sequence[CachedCase],
    *,
    spec: DatasetSpec,
    config: SegmentationConfig,
    classes: LabelClasses,
    device: torch.device,
) -> dict[str, float]:
    """Predict every case and return the mean Dice by lesion type, over the cases that have a lesion of it.

    A type that no case has is left out, and so are voxels of the ignored label. The network is put into evaluation
    mode; nothing random is drawn. Several processes share the cases, and all return the same.
    """
    network.eval()
    dice = torch.zeros(len(cases), len(spec.lesions), dtype=torch.float64)
    for index in range(process_rank(), len(cases), num_processes()):
        case = cases[index]
        scores = predict_scores(network, case.image, spec=spec, config=config, device=device)
        predicted = classes.to_values(likeliest(scores).numpy())
        truth = np.asarray(case.labels)
        if classes.ignored is not None:
            predicted[truth == classes.ignored] = 0
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
