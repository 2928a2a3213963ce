"""The demo: a small experiment on the phantom, PromptLesion against real scans alone, in this process."""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path

from promptlesion.data.phantom import write_phantom_dataset
from promptlesion.experiment.cells import Cell, Design
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.report import write_experiment
from promptlesion.experiment.results import CellTime, ExperimentResults
from promptlesion.methods import PROMPTLESION, REAL
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import Run, RunOptions

logger = logging.getLogger(__name__)


def run_demo(experiment: Experiment, *, command: str, is_phantom: bool = False) -> ExperimentResults:
    """Run the whole loop, or what is left of it; of a finished demo only read the results.

    Args:
        experiment: dataset, configuration and folder.
        command: as typed, for the report.
        is_phantom: make the built-in phantom where the dataset is to lie.

    Raises:
        RunError: the folder holds a demo on other data, with another configuration or seed, or of another version.
    """
    started = time.perf_counter()
    out, config, seed = experiment.out, experiment.config, experiment.seed
    if is_phantom:
        _write_phantom(experiment.data, num_cases=config.demo.phantom_cases, seed=seed)
    experiment.prepared.check_held_out()
    preparing = CellTime(name="data", seconds=round(time.perf_counter() - started, 1))
    run = Run(
        RunOptions(out, seed, experiment.device),
        stage="demo",
        config=config.of_results(),
        inputs=experiment.inputs(),
    )
    if run.is_finished:
        logger.info("%s is finished; there is nothing to do", out)
        return ExperimentResults.model_validate_json((out / "results.json").read_bytes())
    ratio = config.segmentation.synthetic_ratio
    design = Design((REAL, PROMPTLESION), (seed,), (ratio,), (experiment.num_subjects,))
    cells = demo_cells(experiment.num_subjects, ratio=ratio, seed=seed)
    for cell in cells:
        if not cell.is_done(out):
            do(cell, experiment)
    results = write_experiment(
        experiment, design, command=command, failures={}, cells=cells, title="PromptLesion demo", times=[preparing]
    )
    run.finish()
    return results


def demo_cells(num_subjects: int, *, ratio: float, seed: int) -> list[Cell]:
    """List the pieces of a demo, which has one of each, under short names."""
    part = Cell("autoencoder", "autoencoder", num_subjects)
    painted = replace(part, method=PROMPTLESION, ratio=ratio, seed=seed)
    return [
        part,
        replace(part, kind="method", name="diffusion", method=PROMPTLESION, needs=("autoencoder",)),
        replace(painted, kind="cohort", name="synthetic", needs=("diffusion",)),
        replace(part, kind="segmentation", name="segmentation/real", seed=seed),
        replace(painted, kind="segmentation", name="segmentation/mixed", needs=("synthetic",)),
        replace(painted, kind="fidelity", name="fidelity", seed=0, needs=("diffusion", "synthetic")),
    ]


def _write_phantom(root: Path, *, num_cases: int, seed: int) -> None:
    with progress_bar("phantom", num_cases) as bar:
        write_phantom_dataset(
            "ccta",
            num_cases=num_cases,
            seed=seed,
            out=root,
            num_workers=min(2, os.cpu_count() or 1),
            on_progress=lambda done, _: bar.update(done),
        )
