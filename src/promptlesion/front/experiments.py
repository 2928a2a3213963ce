"""Experiments: all of one here, its pieces of work one by one, or as jobs of a cluster."""

import sys
from pathlib import Path

from promptlesion.config import Config
from promptlesion.experiment import run
from promptlesion.experiment.cells import Design, Question, design_of
from promptlesion.experiment.demo import run_demo
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.plan import PlannedCell
from promptlesion.experiment.results import ExperimentResults
from promptlesion.front.settings import Folder, as_config, as_path

_QUESTION = Question()
"""All methods, three seeds, 1 : 1, all real subjects."""


def experiment(
    data: Folder,
    out: Folder,
    question: Question = _QUESTION,
    *,
    workers: int = 1,
    report_only: bool = False,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> ExperimentResults:
    """Compare real scans alone with every method on held-out subjects: tables, figures, report.html in `out`.

    Args:
        data: dataset folder.
        out: the experiment's folder; what is done there is not done again.
        question: what to compare.
        workers: pieces of work at a time.
        report_only: report on what is done so far.
        lesions: a `lesions.toml` elsewhere.
        seed: the first of the seeds.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Returns:
        What was measured; `failures` says why pieces failed, `unfinished` what is not done.
    """
    planned, design = _designed(data, out, question, lesions, seed, device, config)
    return run.run_experiment(planned, design, command=_typed(), num_workers=workers, is_report_only=report_only)[0]


def plan_experiment(
    data: Folder,
    out: Folder,
    question: Question = _QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> list[PlannedCell]:
    """List an experiment's pieces of work, with what each needs and takes; the arguments are `experiment`'s."""
    return run.plan_experiment(*_designed(data, out, question, lesions, seed, device, config))


def do_cell(
    name: str,
    data: Folder,
    out: Folder,
    question: Question = _QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> bool:
    """Do one of an experiment's pieces of work, and return whether it was left to do; the rest is `experiment`'s.

    Raises:
        ValueError: there is no such piece, or what it needs is not done.
    """
    return run.do_cell(name, *_designed(data, out, question, lesions, seed, device, config))


def submit_experiment(
    data: Folder,
    out: Folder,
    question: Question = _QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> dict[str, str]:
    """Submit an experiment's pieces of work and its report to Slurm; the arguments are `experiment`'s.

    Returns:
        The jobs' ids by name, in the order they were submitted.

    Raises:
        ImportError: submitit is not there.
        RuntimeError: Slurm is not there, or refuses.
    """
    planned, design = _designed(data, out, question, lesions, seed, device, config)
    return run.submit_experiment(planned, design, command=_typed())


def demo(
    out: Folder,
    *,
    data: Folder | None = None,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> ExperimentResults:
    """Run a small experiment in this process: real scans alone against PromptLesion, by default on the phantom.

    Args:
        out: folder of all runs, the synthetic dataset, the results and the report; what is done there stays.
        data: dataset folder; without one the built-in phantom is made in `out`/data.
        lesions: a `lesions.toml` elsewhere.
        seed: of everything random but the split.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.
    """
    resolved, root = as_config(config), Path(data or Path(out) / "data")
    num_cases = resolved.demo.synthetic_cases
    planned = Experiment(root, as_path(lesions), Path(out), resolved, seed, device, num_synthetic_cases=num_cases)
    return run_demo(planned, command=_typed(), is_phantom=data is None)


def _typed() -> str:
    return " ".join(["promptlesion", *sys.argv[1:]])


def _designed(
    data: Folder,
    out: Folder,
    question: Question,
    lesions: Folder | None,
    seed: int,
    device: str,
    config: Config | str,
) -> tuple[Experiment, Design]:
    per_type = question.lesions_per_type
    planned = Experiment(Path(data), as_path(lesions), Path(out), as_config(config), seed, device, per_type)
    return planned, design_of(question, num_subjects=planned.num_subjects, first_seed=seed)
