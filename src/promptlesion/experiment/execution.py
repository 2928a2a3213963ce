"""What is done in each piece of an experiment, by whichever process has it."""

import math
import shutil
from dataclasses import asdict
from pathlib import Path

from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.cost.fitting import fitted_config
from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset
from promptlesion.evaluation.segmentation_metrics import evaluate_folder
from promptlesion.experiment.cells import SCORES_FILE, Cell, part_name
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.fidelity import measure_method
from promptlesion.methods import REAL, method_named, train_method
from promptlesion.segmentation.predict import segment_dataset
from promptlesion.segmentation.stage import train_stage
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.plan import mean_lesions_per_case
from promptlesion.training.atomic import write_json
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
        autoencoder = experiment.out / part_name(cell.num_subjects) / "autoencoder"
        train_method(
            cell.method,
            prepared,
            autoencoder_run=autoencoder if method_named(cell.method).needs_autoencoder else None,
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
    config = method_named(cell.method).configured(experiment.config).synthesis
    synthesizer = experiment.load(cell.method, cell.num_subjects)
    names = [lesion.name for lesion in prepared.dataset.spec.lesions]
    per_case = mean_lesions_per_case(names, synthesizer.card.statistics, lesions_per_case=config.lesions_per_case)
    per_type = experiment.lesions_per_type
    if per_type is None:
        per_type = max(1, math.ceil(cell.ratio * len(prepared.train) * per_case / len(names)))
    synthesize_cohort(
        prepared.part("train"),
        synthesizer,
        counts=dict.fromkeys(names, per_type),
        config=config,
        out=out,
        seed=cell.seed,
    )


def _segment(cell: Cell, experiment: Experiment, prepared: PreparedDataset, out: Path) -> None:
    """Train a network, segment the held-out scans, and score them.

    Trained on real scans alone, it is also scored on these: what it does no better there than on held-out ones, no
    further lesion will teach it.
    """
    synthetic = None
    if cell.method != REAL:
        (synthetic,) = experiment.cohorts(cell.method, cell.num_subjects, cell.ratio, [cell.seed])
    fitted = fitted_config(experiment.config, cell.kind, prepared.dataset, out=out, device=experiment.device)
    config = fitted.segmentation.model_copy(update={"synthetic_ratio": cell.ratio})
    train_stage(
        prepared,
        synthetic=synthetic,
        cache=out / _CACHE_FOLDER,
        config=config,
        options=RunOptions(out, cell.seed, experiment.device, fitted.hardware),
    )
    scores = {"scores": _scored(prepared.part("test"), "predictions", experiment, out)}
    if cell.method == REAL:
        scores["training_scores"] = _scored(prepared.part("train"), "training-predictions", experiment, out)
    write_json(out / SCORES_FILE, scores)
    shutil.rmtree(out / _CACHE_FOLDER, ignore_errors=True)


def _scored(scans: Dataset, folder: str, experiment: Experiment, out: Path) -> list[dict[str, object]]:
    """Segment scans with the trained network, and return how well."""
    segment_dataset(out, scans, out / folder, device=experiment.device)
    tolerance_mm = experiment.config.evaluation.surface_tolerance_mm
    return [asdict(score) for score in evaluate_folder(scans, out / folder, tolerance_mm=tolerance_mm)]
