"""What one method paints, measured: distances, distributions, copies, brightness, what the prompt does, speed."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from promptlesion.autoencoder.lesion_bias import autoencoded_mean_hu
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.prepared import PreparedDataset
from promptlesion.evaluation.asked_attributes import AskedLesion, asked_lesions
from promptlesion.evaluation.distances import fidelity_rows
from promptlesion.evaluation.distributions import distribution_figure
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.features import FeatureExtractor
from promptlesion.evaluation.fidelity import measure_fidelity, plaque_types
from promptlesion.evaluation.figures import hu_histogram_figure, save_figure
from promptlesion.evaluation.lesion_intensity import intensity_rows, mean_hu_by_type, prompt_switch
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions
from promptlesion.evaluation.results import PromptSwitch
from promptlesion.experiment.cells import FIDELITY_FILE, SCALE_FILE, Cell
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import FIDELITY_ROWS, MethodFidelity
from promptlesion.masks.placement import PlacementError
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.methods import method_named
from promptlesion.synthesis.prompt_switch import measure_prompt_switch
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks, scans_with_own_masks
from promptlesion.training.atomic import write_text

logger = logging.getLogger(__name__)

_VOLUMES_AT_ONCE = 4
_NUM_TIMED = 12

MeanHU = Mapping[str, Float64[np.ndarray, " _"]]
"""Mean HU of every lesion, by type."""


def measure_method(cell: Cell, experiment: Experiment, prepared: PreparedDataset, out: Path) -> None:
    """Compare the lesions of all seeds' cohorts with held-out real ones, and look for copies of training lesions."""
    started = time.perf_counter()
    config, dataset = experiment.config, prepared.dataset
    run, *cohorts = cell.needs
    synthesizer = experiment.load(run, cell.method)
    names = [lesion.name for lesion in dataset.spec.lesions]
    margin = config.evaluation.feature_margin_voxels
    painted: list[LesionCrop] = []
    asked: list[AskedLesion] = []
    for seed, cohort in zip(count(experiment.seed), cohorts, strict=False):
        found = collect_lesions(open_dataset(experiment.out / cohort), source=dataset, margin_voxels=margin)
        painted += [replace(lesion, case=f"seed {seed}, {lesion.case}") for lesion in found]
        asked += [replace(one, case=f"seed {seed}, {one.case}") for one in asked_lesions(experiment.out / cohort)]
    held_out = collect_lesions(prepared.part("test"), margin_voxels=margin)
    trained_on = collect_lesions(prepared.part("train"), margin_voxels=margin)
    extractors = build_extractors(config.evaluation, window=dataset.window, device=synthesizer.card.device)
    measured = measure_fidelity(
        held_out,
        painted,
        trained_on,
        lesion_types=dataset.spec.lesions,
        extractors=extractors,
        seed=experiment.seed,
        num_resamples=config.evaluation.num_resamples,
        asked=asked,
    )
    real_hu = mean_hu_by_type(held_out, names)
    intensity, switched = intensity_rows("synthetic", real_hu, mean_hu_by_type(painted, names)), None
    if isinstance(synthesizer, PromptLesionSynthesizer):
        intensity = intensity_rows("autoencoded", real_hu, _autoencoded_hu(synthesizer, prepared)) + intensity
        switched = _prompt_switch(cell, experiment, prepared, synthesizer, real_hu)
    sides = by_type(held_out, names), by_type(painted, names)
    _measure_scale(experiment, sides[0], extractors)
    figure = distribution_figure(sides[0], {cell.method: sides[1]}, plaque_types=plaque_types(dataset.spec.lesions))
    save_figure(figure, out / "distributions.png")
    voxels = [
        {name: np.concatenate([lesion.voxels_hu for lesion in lesions]) for name, lesions in side.items() if lesions}
        for side in sides
    ]
    save_figure(hu_histogram_figure(*voxels, window_hu=dataset.spec.window_hu), out / "hu_histogram.png")
    patch = method_named(cell.method).patch_voxels(config)
    result = MethodFidelity(
        num_subjects=cell.num_subjects,
        method=cell.method,
        measured=measured,
        intensity=intensity,
        prompt_switch=switched,
        volumes_per_minute=_volumes_per_minute(synthesizer, prepared.part("train"), seed=experiment.seed),
        sampling=f"{config.synthesis.sampler}, {config.synthesis.num_steps} steps" if patch else "no network",
        patch_voxels=patch,
        seconds=round(time.perf_counter() - started, 1),
    )
    write_text(out / FIDELITY_FILE, result.model_dump_json(indent=1) + "\n")


def _measure_scale(
    experiment: Experiment, held_out: Mapping[str, list[LesionCrop]], extractors: Sequence[FeatureExtractor]
) -> None:
    """Compare held-out lesions with those of all training subjects, once for all methods."""
    path, margin = experiment.out / SCALE_FILE, experiment.config.evaluation.feature_margin_voxels
    if not path.is_file():
        trained_on = by_type(collect_lesions(experiment.prepared.part("train"), margin_voxels=margin), list(held_out))
        rows = [
            row
            for extractor in extractors
            for row in fidelity_rows(
                extractor, held_out, trained_on, compared="held-out against training", seed=experiment.seed
            )
        ]
        write_text(path, FIDELITY_ROWS.dump_json(tuple(rows)).decode() + "\n")


def _autoencoded_hu(synthesizer: PromptLesionSynthesizer, prepared: PreparedDataset) -> MeanHU:
    """Return the mean HU of the held-out lesions after stage 1 alone."""
    autoencoder = synthesizer.model.autoencoder
    pairs = autoencoded_mean_hu(
        autoencoder.network,
        prepared.test,
        spec=prepared.dataset.spec,
        patch_voxels=synthesizer.model.config.patch_voxels,
        precision=autoencoder.config.precision,
        device=synthesizer.card.device,
    )
    return {name: values[:, 1] for name, values in pairs.items()}


def _prompt_switch(
    cell: Cell,
    experiment: Experiment,
    prepared: PreparedDataset,
    synthesizer: PromptLesionSynthesizer,
    real_hu: MeanHU,
) -> PromptSwitch | None:
    """Measure what the prompt alone does on the held-out scans; nothing where there is no other prompt to switch to."""
    if len(real_hu) < 2:
        return None
    try:
        mean_hu = measure_prompt_switch(
            prepared.part("test"),
            synthesizer,
            num_lesions=experiment.config.demo.prompt_switch_lesions,
            drawing=build_drawing(
                prepared.part("train"),
                synthesizer.card.statistics,
                experiment.synthesis(cell.method),
                edge_mm=synthesizer.card.edge_mm,
                max_extent_mm=synthesizer.card.max_extent_mm,
            ),
            seed=experiment.seed,
        )
    except PlacementError as error:
        logger.warning("%s: what the prompt alone does is not measured: %s", cell.method, error)
        return None
    return prompt_switch(
        synthesizer.model.config.prompt_encoder,
        dict(zip(real_hu, mean_hu.round(2).T, strict=True)),
        {name: float(values.mean()) for name, values in real_hu.items() if len(values)},
    )


def _volumes_per_minute(synthesizer: Synthesizer, dataset: Dataset, *, seed: int) -> float:
    """Paint some masks of real lesions four at a time, twice, and return the speed of the faster round."""
    scans = scans_with_own_masks(
        dataset, edge_mm=synthesizer.card.edge_mm, max_extent_mm=synthesizer.card.max_extent_mm, seed=seed
    )
    chosen: list[MaskedScan] = []
    while sum(len(scan.lesions) for scan in chosen) < _NUM_TIMED and (scan := next(scans, None)) is not None:
        chosen.append(scan)
    number = sum(len(scan.lesions) for scan in chosen)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        for scan in chosen:
            paint_masks(scan, synthesizer, batch_size=_VOLUMES_AT_ONCE)
        seconds.append(time.perf_counter() - started)
    return 60 * number / min(seconds)
