"""An experiment from beginning to end: pieces of work in processes of their own, then tables, figures and report.

Any number of commands may work on one folder, on one machine or on several that share it: each takes the next piece
that nobody holds. What is done is never redone, and a piece that fails leaves the others alone.
"""

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console

from promptlesion.baselines.difftumor import CARD
from promptlesion.data.cache import data_fingerprint
from promptlesion.data.trained_on import TrainedOn, check_unseen
from promptlesion.evaluation.wording import duration_text
from promptlesion.experiment.cells import Asked, Cell, plan_cells
from promptlesion.experiment.estimate import estimate_cells
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.progress import Board, shown
from promptlesion.experiment.report import write_experiment
from promptlesion.experiment.results import ExperimentResults
from promptlesion.training.atomic import read_json, write_text
from promptlesion.training.device import resolve_device, worker_device
from promptlesion.training.locks import lock_if_free, locked
from promptlesion.training.pool import _begin_worker, threads_each
from promptlesion.training.run import Run, read_metrics

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_LOCKS_FOLDER, _LOGS_FOLDER = ".locks", "logs"
_STDERR = Console(stderr=True, markup=False, emoji=False)


@dataclass(frozen=True)
class _Busy:
    """A piece of work in a process of its own, and the lock on it."""

    cell: Cell
    process: SpawnProcess
    lock: ExitStack
    worker: int
    started: float


def run_experiment(
    experiment: Experiment, asked: Asked, *, command: str, num_workers: int = 1, is_report_only: bool = False
) -> tuple[ExperimentResults, dict[str, str]]:
    """Do all that is left, then write tables, figures and report.

    Args:
        experiment: dataset, configuration and folder.
        asked: what is compared with what.
        command: as typed, for the report.
        num_workers: pieces of work at a time.
        is_report_only: do no work; write what is there, though others may be working on the folder.

    Returns:
        The results, and why pieces failed, by name.

    Raises:
        RunError: the folder holds an experiment on other data or with another configuration or seed.
    """
    prepared = experiment.prepared
    prepared.check_held_out()
    _check_trained(plan_cells(asked), experiment)
    Run(
        experiment.out,
        stage="experiment",
        config=experiment.config.model_dump(mode="json", exclude={"hardware"}),
        seed=experiment.seed,
        inputs={
            "data": data_fingerprint([*prepared.train, *prepared.validation, *prepared.test]),
            "lesions": prepared.dataset.spec.model_dump_json(),
            "painted lesions of each type": str(experiment.lesions_per_type or "as many as real ones"),
        },
        device=resolve_device(experiment.device),
    )
    failures = {} if is_report_only else _work(plan_cells(asked), experiment, num_workers)
    with locked(experiment.out / _LOCKS_FOLDER / "report.lock"):  # several commands may end at once
        results = write_experiment(experiment, asked, command=command, failures=failures)
    return results, failures


def _check_trained(cells: Sequence[Cell], experiment: Experiment) -> None:
    """Refuse what is trained already on subjects that validate or test now; else it would pass as done."""
    prepared = experiment.prepared
    for cell in cells:
        if cell.kind in ("autoencoder", "method") and cell.is_done(experiment.out):
            card = read_json(experiment.out / cell.name / CARD)
            check_unseen(TrainedOn.of_cards(card), prepared.dataset, prepared.split, source=experiment.out / cell.name)


def _work(cells: list[Cell], experiment: Experiment, num_workers: int) -> dict[str, str]:
    """Do all that is left, saying first how long it will take and then how far it is; return why pieces failed."""
    board = Board(cells, num_workers=num_workers)
    _look(board, experiment.out, set())
    if any(board.state(cell) != "done" for cell in cells):
        board.estimates = estimate_cells(cells, experiment, num_workers=num_workers)
        num_left = sum(board.state(cell) != "done" for cell in cells)
        logger.info(
            "%d of %d pieces of work are left: about %s with %d at a time",
            num_left,
            len(cells),
            duration_text(board.seconds_left() or 0.0),
            num_workers,
        )
    failures: dict[str, str] = {}
    with shown(board, _STDERR) as draw:
        for _ in _worked(board, experiment, num_workers, failures):
            draw()
        draw()
    return failures


def _worked(board: Board, experiment: Experiment, num_workers: int, failures: dict[str, str]) -> Iterator[None]:
    """Start and end pieces of work until none is left that could be done; yields about once a second."""
    busy: list[_Busy] = []
    try:
        while True:
            for each in [each for each in busy if not each.process.is_alive()]:
                busy.remove(each)
                _end(each, board, experiment.out, failures)
            _look(board, experiment.out, {*failures, *(each.cell.name for each in busy)})
            for cell in board.cells:
                if len(busy) < num_workers and _can_begin(cell, board):
                    started = _begin(cell, experiment, board, num_workers, {each.worker for each in busy})
                    busy += [started] if started else []
            yield
            if not busy and all(board.state(cell) in ("done", "failed", "skipped") for cell in board.cells):
                return
            for each in busy:
                board.states[each.cell.name] = _how_far(each.cell, experiment.out)
            if busy:
                wait([each.process.sentinel for each in busy], timeout=_POLL_SECONDS)
            else:
                time.sleep(_POLL_SECONDS)
    finally:
        for each in busy:
            each.process.terminate()
            each.process.join()
            each.lock.close()


def _look(board: Board, out: Path, known: set[str]) -> None:
    """See what is done, and what can no longer be done; of some it is known."""
    for cell in board.cells:
        if board.state(cell) != "done" and cell.name not in known and cell.is_done(out):
            board.states[cell.name] = "done"
        lost = [name for name in cell.needs if board.states.get(name) in ("failed", "skipped")]
        if lost and board.state(cell) == "waiting":
            board.states[cell.name] = "skipped"


def _can_begin(cell: Cell, board: Board) -> bool:
    is_free = board.state(cell) in ("waiting", "elsewhere")
    return is_free and all(board.states.get(name) == "done" for name in cell.needs)


def _begin(cell: Cell, experiment: Experiment, board: Board, num_workers: int, taken: set[int]) -> _Busy | None:
    """Start a piece of work, unless another command has it or has just done it."""
    lock = ExitStack()
    path = experiment.out / _LOCKS_FOLDER / f"{cell.name.replace('/', '-')}.lock"
    if not lock.enter_context(lock_if_free(path)):
        board.states[cell.name] = "elsewhere"
        return None
    if cell.is_done(experiment.out):
        board.states[cell.name] = "done"
        lock.close()
        return None
    worker = next(number for number in range(num_workers) if number not in taken)
    device = worker_device(resolve_device(experiment.device), worker)
    num_threads = max(1, torch.get_num_threads() // num_workers)
    with threads_each(num_threads):
        process = get_context("spawn").Process(
            target=_do_alone, args=(cell, replace(experiment, device=device), num_threads), daemon=True
        )
        process.start()
    board.states[cell.name] = "begins"
    return _Busy(cell, process, lock, worker, time.perf_counter())


def _end(busy: _Busy, board: Board, out: Path, failures: dict[str, str]) -> None:
    """Take note of how a piece of work ended."""
    name = busy.cell.name
    if busy.process.exitcode == 0 and busy.cell.is_done(out):
        board.states[name] = "done"
        board.seconds[name] = time.perf_counter() - busy.started
    else:
        board.states[name] = "failed"
        code = busy.process.exitcode
        log = _log_path(out, busy.cell)
        told = log.with_suffix(".error")
        failures[name] = told.read_text(encoding="utf-8") if told.is_file() else f"its process ended with code {code}"
        logger.warning("%s failed: %s (all it said: %s)", name, failures[name], log)
    busy.lock.close()


def _how_far(cell: Cell, out: Path) -> str:
    """Return how many steps a training has done."""
    lines = read_metrics(out / cell.name)
    return f"step {lines[-1]['step']:.0f}" if lines else "at work"


def _log_path(out: Path, cell: Cell) -> Path:
    return out / _LOGS_FOLDER / f"{cell.name.replace('/', '-')}.log"


def _do_alone(cell: Cell, experiment: Experiment, num_threads: int) -> None:
    """Do a piece of work in this process, which is its own; what it says goes to its log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all: the one that started this ends it
    _begin_worker(0, do)
    torch.set_num_threads(num_threads)
    log = _log_path(experiment.out, cell)
    told = log.with_suffix(".error")
    log.parent.mkdir(parents=True, exist_ok=True)
    told.unlink(missing_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, _redirected(file.fileno()):
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("promptlesion").setLevel(logging.INFO)
        try:
            do(cell, experiment)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            traceback.print_exc()
            write_text(told, f"{type(error).__name__}: {error}")
            sys.exit(1)


@contextmanager
def _redirected(descriptor: int) -> Iterator[None]:
    """Let all that this process and its libraries print go to an open file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    yield
