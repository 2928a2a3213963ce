"""Fitting each lesion type's guidance: lesions painted at new places, at several scales, and what they are like."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from promptlesion.data.dataset import Dataset
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.drawing import build_drawing
from promptlesion.synthesis.guidance import (
    GUIDANCE_FILE,
    FittedGuidance,
    TypeGuidance,
    read_guidance,
    sampling_settings,
)
from promptlesion.synthesis.repaint import MaskedScan, paint_masks, scans_with_new_masks
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer
from promptlesion.training.atomic import write_text
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.progress import progress_bar

logger = logging.getLogger(__name__)

SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_LESIONS_PER_TYPE = 16


def fit_guidance(
    run_folder: Path,
    dataset: Dataset,
    config: SynthesisConfig,
    *,
    seed: int,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> FittedGuidance | None:
    """Fit the guidance of a trained denoiser and write it beside its checkpoint; what is fitted already is kept.

    Sixteen masks of each type are placed in training scans, where no training lesion is, and painted at every scale
    with the same noise. A type gets the scale at which the mean of its painted lesions' HU is nearest to that of its
    training lesions; one without training lesions, or without room for masks, gets 1. No held-out scan is looked at.

    Args:
        run_folder: finished run of stage 2, with a prompt.
        dataset: the training scans.
        config: how lesions will be sampled.
        seed: of masks and noise.
        device: `auto` or a device's name.
        hardware: whether the denoiser's steps become CUDA graphs.

    Returns:
        What was fitted; none where the configuration names the guidance.
    """
    if config.guidance_scale != "fitted":
        return None
    plain = config.model_copy(update={"guidance_scale": 1.0, "keep_noise": False})  # noise changes no mean
    unguided = load_synthesizer(run_folder, plain, device=device, hardware=hardware)
    fitted = read_guidance(run_folder, config, unguided.model_hash)
    if fitted is not None:
        return fitted
    spec, statistics = unguided.spec, unguided.statistics
    drawing = build_drawing(
        dataset,
        statistics,
        deformation=config.deformation,
        max_extent_mm=unguided.max_extent_mm,
        size_range_lesions=config.size_range_lesions,
    )
    scans = scans_with_new_masks(
        dataset,
        num_per_type=_LESIONS_PER_TYPE,
        edge_mm=unguided.edge_mm,
        max_extent_mm=unguided.max_extent_mm,
        drawing=drawing,
        seed=seed,
        is_fewer_enough=True,
    )
    painted: dict[float, list[list[float]]] = {}
    with progress_bar("fitting guidance", len(SCALES) * len(scans)) as bar:
        for number, scale in enumerate(SCALES):
            synthesizer = replace(unguided, guidance_scales=(scale,) * len(spec.lesions))
            means: list[list[float]] = [[] for _ in spec.lesions]
            for done, scan in enumerate(scans, start=number * len(scans) + 1):
                for type_index, mean_hu in _painted_means(scan, synthesizer):
                    means[type_index].append(mean_hu)
                bar.update(done)
            painted[scale] = means
    types = {
        lesion.name: _nearest(
            {scale: means[index] for scale, means in painted.items()}, statistics.types[lesion.name].mean_hu
        )
        for index, lesion in enumerate(spec.lesions)
    }
    fitted = FittedGuidance(weights_sha256=unguided.model_hash, sampling=sampling_settings(config), types=types)
    write_text(run_folder / GUIDANCE_FILE, fitted.model_dump_json(indent=1) + "\n")
    for name, found in types.items():
        logger.info("guidance of %s: %g", name, found.scale)
    return fitted


def _painted_means(scan: MaskedScan, synthesizer: PromptLesionSynthesizer) -> list[tuple[int, float]]:
    """Return type and mean HU of every lesion of a scan."""
    boxes = paint_masks(scan, synthesizer)
    return [(lesion.type_index, float(hu[lesion.mask].mean())) for lesion, hu in zip(scan.lesions, boxes, strict=True)]


def _nearest(painted: dict[float, list[float]], training_hu: tuple[float, ...]) -> TypeGuidance:
    """Return the scale whose lesions are as bright as the training lesions, rounded to tenths of a HU."""
    number = len(next(iter(painted.values())))
    wanted = float(np.mean(training_hu)) if training_hu else None
    means = {scale: round(float(np.mean(values)), 1) for scale, values in painted.items()} if number else {}
    scale = 1.0
    if wanted is not None and means:
        scale = min(means, key=lambda candidate: abs(means[candidate] - wanted))
    return TypeGuidance(
        scale=scale,
        training_mean_hu=None if wanted is None else round(wanted, 1),
        painted_mean_hu=means,
        num_painted=number,
    )
