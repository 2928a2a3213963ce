"""What is done in each piece of an experiment, by whichever process has it."""

import math
import shutil
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.cost.fitting import fitted_config
from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.prepared import PreparedDataset
from promptlesion.evaluation.segmentation_metrics import evaluate_folder
from promptlesion.experiment.cells import SCORES_FILE, Cell
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.fidelity import measure_method
from promptlesion.methods import REAL, load_method, train_method
from promptlesion.segmentation.predict import segment_dataset
from promptlesion.segmentation.train import train_stage
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.plan import mean_lesions_per_case
from promptlesion.training.atomic import write_json
from promptlesion.training.pool import is_worker
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import RunOptions

_CACHE_FOLDER = "cache"
"""Of a cohort's prepared scans, a gigabyte easily: of no use once its network is trained."""


def do(cell: Cell, experiment: Experiment) -> None:
    """Do one piece of work, or what is left of it."""
    prepared, out = experiment.with_subjects(cell.num_subjects), experiment.out / cell.name
    if cell.kind == "autoencoder":
        config = fitted_config(experiment.config, cell.kind, prepared.dataset, out=out, device=experiment.device)
        train_autoencoder(
            prepared.training,
            validation_cases=prepared.validation,
            config=config.autoencoder,
            options=RunOptions(out, experiment.seed, experiment.device, config.hardware),
        )
    elif cell.kind == "method":
        config = fitted_config(experiment.config, cell.method, prepared.dataset, out=out, device=experiment.device)
        train_method(
            cell.method,
            prepared,
            autoencoder_run=experiment.out / cell.needs[0] if cell.needs else None,
            config=config,
            options=RunOptions(out, experiment.seed, experiment.device, config.hardware),
        )
    elif cell.kind == "cohort":
        _paint(cell, experiment, prepared, out)
    elif cell.kind == "segmentation":
        _segment(cell, experiment, prepared, out)
    else:
        measure_method(cell, experiment, prepared, out)


def _paint(cell: Cell, experiment: Experiment, prepared: PreparedDataset, out: Path) -> None:
    """Paint cases with as many lesions as real ones have, every type equally often.

    Unless a number is asked for there are as many cases as the ratio says.
    """
    config, (run, *_) = experiment.synthesis(cell.method), cell.needs
    synthesizer = experiment.load(run, cell.method)
    names = [lesion.name for lesion in prepared.dataset.spec.lesions]
    per_case = mean_lesions_per_case(names, synthesizer.card.statistics, lesions_per_case=config.lesions_per_case)
    per_type = experiment.lesions_per_type
    if per_type is None:
        num_cases = experiment.num_synthetic_cases or cell.ratio * len(prepared.train)
        per_type = max(1, math.ceil(num_cases * per_case / len(names)))
    synthesize_cohort(
        prepared.part("train"),
        synthesizer,
        counts=dict.fromkeys(names, per_type),
        config=config,
        out=out,
        seed=cell.seed,
        load=partial(load_method, experiment.out / run, config) if not is_worker() else None,
    )


def _segment(cell: Cell, experiment: Experiment, prepared: PreparedDataset, out: Path) -> None:
    """Train a network, segment the held-out scans, and score them.

    Trained on real scans alone, it is also scored on these: what it does no better there than on held-out ones, no
    further lesion will teach it.
    """
    fitted = fitted_config(experiment.config, cell.kind, prepared.dataset, out=out, device=experiment.device)
    train_stage(
        prepared,
        synthetic=open_dataset(experiment.out / cell.needs[0]) if cell.needs else None,
        cache=out / _CACHE_FOLDER,
        config=fitted.segmentation.model_copy(update={"synthetic_ratio": cell.ratio}),
        options=RunOptions(out, cell.seed, experiment.device, fitted.hardware),
    )
    started = time.perf_counter()
    scores: dict[str, object] = {"scores": _scored(prepared.part("test"), "predictions", experiment, out)}
    if cell.method == REAL:
        scores["training_scores"] = _scored(prepared.part("train"), "training-predictions", experiment, out)
    scores["seconds"] = round(time.perf_counter() - started, 1)
    write_json(out / SCORES_FILE, scores)
    shutil.rmtree(out / _CACHE_FOLDER, ignore_errors=True)


def _scored(scans: Dataset, folder: str, experiment: Experiment, out: Path) -> list[dict[str, object]]:
    """Segment scans with the trained network, and return how well."""
    with progress_bar("segmenting", len(scans.cases)) as bar:
        segment_dataset(
            out, scans, out / folder, device=experiment.device, on_progress=lambda done, _: bar.update(done)
        )
    tolerance_mm = experiment.config.evaluation.surface_tolerance_mm
    return [asdict(score) for score in evaluate_folder(scans, out / folder, tolerance_mm=tolerance_mm)]
