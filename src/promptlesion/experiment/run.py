"""An experiment from beginning to end: pieces of work, then tables, figures and report."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from promptlesion.baselines.difftumor import CARD
from promptlesion.data.trained_on import TrainedOn, check_unseen
from promptlesion.experiment.cells import Cell, Design, cell_named, plan_cells
from promptlesion.experiment.estimate import estimate_cells
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.logs import failure_told, lock_path, read_failures
from promptlesion.experiment.plan import PlannedCell
from promptlesion.experiment.report import write_experiment
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.runner import do_all
from promptlesion.training.atomic import read_json
from promptlesion.training.cluster import ClusterJob, submit
from promptlesion.training.locks import LOCKS_FOLDER, check_locks, locked
from promptlesion.training.run import Run, RunOptions


def run_experiment(
    experiment: Experiment, design: Design, *, command: str, num_workers: int = 1, is_report_only: bool = False
) -> tuple[ExperimentResults, dict[str, str]]:
    """Do all that is left, then write tables, figures and report.

    Args:
        experiment: dataset, configuration and folder.
        design: what is compared with what.
        command: as typed, for the report.
        num_workers: pieces of work at a time.
        is_report_only: do no work; write what is there, though others may be working on the folder.

    Returns:
        The results, and why pieces failed, by name.

    Raises:
        RunError: the folder holds an experiment on other data or with another configuration or seed.
        LockError: locks do not work in the folder.
    """
    cells = _opened(experiment, design)
    if not is_report_only:
        do_all(cells, experiment, num_workers=num_workers)
    failures = read_failures(experiment.out, cells)
    with locked(experiment.out / LOCKS_FOLDER / "report.lock"):  # several commands may end at once
        results = write_experiment(experiment, design, command=command, failures=failures)
    return results, failures


def plan_experiment(experiment: Experiment, design: Design) -> list[PlannedCell]:
    """List all work, what others need first; what is left is timed on this machine, one piece at a time.

    Raises:
        RunError: as `run_experiment` does.
    """
    cells = _opened(experiment, design)
    left = [cell for cell in cells if not cell.is_done(experiment.out)]
    estimates = estimate_cells(left, experiment, num_workers=1) if left else {}
    return [PlannedCell.of(cell, is_done=cell not in left, estimate=estimates.get(cell.name)) for cell in cells]


def do_cell(name: str, experiment: Experiment, design: Design) -> bool:
    """Do one piece of work, after whoever else has it, and return whether anything was left to do.

    Raises:
        ValueError: there is no such piece, or what it needs is not done.
        RunError: as `run_experiment` does.
    """
    cells = _opened(experiment, design)
    cell = cell_named(name, cells)
    with locked(lock_path(experiment.out, cell)):
        if cell.is_done(experiment.out):
            return False
        needed = [each.name for each in cells if each.name in cell.needs and not each.is_done(experiment.out)]
        if needed:
            raise ValueError(f"--cell {name}: expected what it needs to be done; not done: {', '.join(needed)}")
        with failure_told(experiment.out, cell):
            do(cell, experiment)
    return True


def submit_experiment(experiment: Experiment, design: Design, *, command: str) -> dict[str, str]:
    """Submit a job for every piece of work that is left, and one for the report; return their ids by name.

    Each starts when those it needs are done, the report's when all have ended, as they may. `config.cluster` says what
    they ask for; their output lies in `out/jobs`.

    Raises:
        RunError: as `run_experiment` does.
        ImportError: submitit is not there.
        RuntimeError: Slurm is not there, or refuses.
    """
    cells, alone = _opened(experiment, design), replace(experiment)
    jobs = [
        ClusterJob(cell.name, partial(do_cell, cell.name, alone, design), cell.needs, wants_gpu=cell.wants_gpu)
        for cell in cells
        if not cell.is_done(experiment.out)
    ]
    report = partial(run_experiment, alone, design, command=command, is_report_only=True)
    names = tuple(job.name for job in jobs)
    last = ClusterJob("report", report, names, is_after_failures=True, wants_gpu=False)
    return submit([*jobs, last], experiment.out / "jobs", experiment.config.cluster)


def _opened(experiment: Experiment, design: Design) -> list[Cell]:
    """Check that data and folder are those of this experiment, or begin the folder; return its pieces of work."""
    cells, prepared = plan_cells(design), experiment.prepared
    prepared.check_held_out()
    _check_trained(cells, experiment)
    check_locks(experiment.out)
    Run(
        RunOptions(experiment.out, experiment.seed, experiment.device),
        stage="experiment",
        config=experiment.config.of_results(),
        inputs={
            **experiment.inputs(),
            "painted lesions of each type": str(experiment.lesions_per_type or "as many as real ones"),
        },
    )
    return cells


def _check_trained(cells: Sequence[Cell], experiment: Experiment) -> None:
    """Refuse what is trained already on subjects that validate or test now; else it would pass as done."""
    prepared = experiment.prepared
    for cell in cells:
        if cell.kind in ("autoencoder", "method") and cell.is_done(experiment.out):
            card = read_json(experiment.out / cell.name / CARD)
            check_unseen(TrainedOn.of_cards(card), prepared.dataset, prepared.split, source=experiment.out / cell.name)
