"""Fitting each lesion type's guidance: lesions painted at new places, at several scales, and what they are like."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from promptlesion.data.dataset import Dataset
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.guidance import (
    GUIDANCE_FILE,
    FittedGuidance,
    TypeGuidance,
    read_guidance,
    sampling_settings,
)
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks, scans_with_new_masks
from promptlesion.training.atomic import write_text
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import RunOptions

logger = logging.getLogger(__name__)

SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
_STEP = 0.05
_LESIONS_PER_TYPE = 64
_GUIDED_PER_TYPE = 16
_AS_NEAR_HU = 1.0
"""More guidance has to bring the mean nearer by more than this: in some types it does nothing, and none is used."""


def fit_guidance(dataset: Dataset, config: SynthesisConfig, options: RunOptions) -> FittedGuidance | None:
    """Fit the guidance of a trained denoiser and write it beside its checkpoint; what is fitted already is kept.

    64 masks of each type are placed in training scans, where no training lesion is, and painted at scale 1; 16 of them
    at every other scale too, with the same noise. Lesions differ much in brightness (calcium by 110 HU), so how bright
    a type is takes many; what guidance adds is a difference within each lesion, and takes few. Between the
    scales the mean is taken to go straight. A type gets the least scale at which the mean of its painted lesions' HU
    is, to 1 HU, nearest to that of its training lesions; one without training lesions, or without room for masks,
    gets 1. No held-out scan is looked at.

    Returns:
        What was fitted; none where the configuration names the guidance.
    """
    if config.guidance_scale != "fitted":
        return None
    plain = config.model_copy(update={"guidance_scale": 1.0, "keep_noise": False})  # noise changes no mean
    unguided = load_synthesizer(options.out, plain, device=str(options.device), hardware=options.hardware)
    card = unguided.card
    fitted = read_guidance(options.out, config, card.model_hash)
    if fitted is not None:
        return fitted
    spec, statistics = card.spec, card.statistics
    drawing = build_drawing(dataset, statistics, config, edge_mm=card.edge_mm, max_extent_mm=card.max_extent_mm)
    scans = scans_with_new_masks(
        dataset,
        num_per_type=_LESIONS_PER_TYPE,
        drawing=drawing,
        seed=options.seed,
        is_fewer_enough=True,
    )
    guided = _some_of(scans, per_type=_GUIDED_PER_TYPE)
    passes = [(1.0, scans), *((scale, guided) for scale in SCALES)]
    painted: list[list[list[float]]] = []
    done = 0
    with progress_bar("fitting guidance", sum(len(part) for _, part in passes)) as bar:
        for scale, part in passes:
            synthesizer = unguided.guided((scale,) * len(spec.lesions))
            means: list[list[float]] = [[] for _ in spec.lesions]
            for scan in part:
                for type_index, mean_hu in _painted_means(scan, synthesizer):
                    means[type_index].append(mean_hu)
                done += 1
                bar.update(done)
            painted.append(means)
    unguided_hu, *at_scale_hu = painted
    types = {
        lesion.name: fit_scale(
            unguided_hu[index], [means[index] for means in at_scale_hu], statistics.types[lesion.name].mean_hu
        )
        for index, lesion in enumerate(spec.lesions)
    }
    fitted = FittedGuidance(weights_sha256=card.model_hash, sampling=sampling_settings(config), types=types)
    write_text(options.out / GUIDANCE_FILE, fitted.model_dump_json(indent=1) + "\n")
    for name, found in types.items():
        logger.info("guidance of %s: %g", name, found.scale)
    return fitted


def _some_of(scans: Sequence[MaskedScan], *, per_type: int) -> list[MaskedScan]:
    """Return the scans with at least `per_type` lesions of each type, spread evenly over them; all where fewer."""
    placed = Counter(lesion.type_index for scan in scans for lesion in scan.lesions)
    seen: Counter[int] = Counter()
    chosen = []
    for scan in scans:
        kept = []
        for index, lesion in enumerate(scan.lesions):
            if seen[lesion.type_index] % max(1, placed[lesion.type_index] // per_type) == 0:
                kept.append(index)
            seen[lesion.type_index] += 1
        if kept:
            lesions, seeds = zip(*((scan.lesions[index], scan.seeds[index]) for index in kept), strict=True)
            chosen.append(replace(scan, lesions=lesions, seeds=seeds))
    return chosen


def _painted_means(scan: MaskedScan, synthesizer: PromptLesionSynthesizer) -> list[tuple[int, float]]:
    boxes = paint_masks(scan, synthesizer)
    return [(lesion.type_index, float(hu[lesion.mask].mean())) for lesion, hu in zip(scan.lesions, boxes, strict=True)]


def fit_scale(
    unguided_hu: Sequence[float], at_scale_hu: Sequence[Sequence[float]], training_hu: Sequence[float]
) -> TypeGuidance:
    """Return the least scale whose lesions are as bright as the training lesions; HU are rounded to tenths.

    Args:
        unguided_hu: of all lesions of the type, at scale 1.
        at_scale_hu: of some of them, at each of the scales; 1 is the first.
        training_hu: of the training lesions.
    """
    wanted = float(np.mean(training_hu)) if training_hu else None
    means: dict[float, float] = {}
    if unguided_hu:
        added = np.mean(at_scale_hu, axis=1) - np.mean(at_scale_hu[0])
        means = {scale: round(float(np.mean(unguided_hu) + hu), 1) for scale, hu in zip(SCALES, added, strict=True)}
    scale = 1.0
    if wanted is not None and means:
        between = np.arange(SCALES[0], SCALES[-1] + _STEP / 2, _STEP)
        distances = np.abs(np.interp(between, SCALES, list(means.values())) - wanted)
        scale = round(float(between[np.argmax(distances <= distances.min() + _AS_NEAR_HU)]), 2)
    return TypeGuidance(
        scale=scale,
        training_mean_hu=None if wanted is None else round(wanted, 1),
        painted_mean_hu=means,
        num_painted=len(unguided_hu),
        num_guided=len(at_scale_hu[0]),
    )
