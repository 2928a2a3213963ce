"""What one method paints, measured: distances, distributions, copies, plaque burden, speed."""

import time
from dataclasses import replace
from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset
from promptlesion.evaluation.distributions import distribution_figure
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.fidelity import measure_fidelity, plaque_types
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions
from promptlesion.experiment.cells import FIDELITY_FILE, Cell
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import MethodFidelity
from promptlesion.methods import method_named
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.trial_painting import MaskedScan, paint_masks, scans_with_own_masks
from promptlesion.training.atomic import write_text

_VOLUMES_AT_ONCE = 4
_NUM_TIMED = 12


def measure_method(cell: Cell, experiment: Experiment, prepared: PreparedDataset, out: Path) -> None:
    """Compare the lesions of all seeds' cohorts with held-out real ones, and look for copies of training lesions."""
    config, dataset = experiment.config, prepared.dataset
    synthesizer = experiment.load(cell.method, cell.num_subjects)
    names = [lesion.name for lesion in dataset.spec.lesions]
    margin = config.evaluation.feature_margin_voxels
    seeds = [int(name.rsplit("-", 1)[1]) for name in cell.needs]
    painted: list[LesionCrop] = []
    for seed, cohort in zip(seeds, experiment.cohorts(cell.method, cell.num_subjects, cell.ratio, seeds), strict=True):
        found = collect_lesions(cohort, source=dataset, margin_voxels=margin)
        painted += [replace(lesion, case=f"seed {seed}, {lesion.case}") for lesion in found]
    held_out = collect_lesions(prepared.part("test"), margin_voxels=margin)
    trained_on = collect_lesions(prepared.part("train"), margin_voxels=margin)
    measured = measure_fidelity(
        held_out,
        painted,
        trained_on,
        lesion_types=dataset.spec.lesions,
        extractors=build_extractors(config.evaluation, window=dataset.window, device=synthesizer.card.device),
        seed=experiment.seed,
    )
    patch = method_named(cell.method).patch_voxels(config)
    result = MethodFidelity(
        num_subjects=cell.num_subjects,
        method=cell.method,
        measured=measured,
        volumes_per_minute=_volumes_per_minute(synthesizer, prepared.part("train"), seed=experiment.seed),
        sampling=f"{config.synthesis.sampler}, {config.synthesis.num_steps} steps" if patch else "no network",
        patch_voxels=patch,
    )
    figure = distribution_figure(
        by_type(held_out, names),
        {cell.method: by_type(painted, names)},
        plaque_types=plaque_types(dataset.spec.lesions),
    )
    save_figure(figure, out / "distributions.png")
    write_text(out / FIDELITY_FILE, result.model_dump_json(indent=1) + "\n")


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
