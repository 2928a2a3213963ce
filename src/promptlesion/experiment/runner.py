"""The pieces of an experiment on this machine, each in a process of its own, as soon as what it needs is done.

Any number of commands may work on one folder, on one machine or on several that share it: each takes the next piece
that nobody holds. What is done is never redone, and a piece that fails leaves the others alone.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter

import torch
from rich.console import Console

from promptlesion.evaluation.wording import duration_text
from promptlesion.experiment.cells import Cell
from promptlesion.experiment.estimate import estimate_cells
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.logs import failure_told, lock_path, log_path, logged, tell_failure
from promptlesion.experiment.progress import AT_REST, Progress, shown
from promptlesion.training.device import resolve_device, worker_device
from promptlesion.training.locks import lock_if_free
from promptlesion.training.pool import Done, Pool, worker_number
from promptlesion.training.run import read_metrics

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_STDERR = Console(stderr=True, markup=False, emoji=False)


def do_all(cells: Sequence[Cell], experiment: Experiment, *, num_workers: int) -> None:
    """Do all that is left, saying first how long it will take and then how far it is."""
    progress = Progress(cells, num_workers=num_workers)
    progress.states |= {cell.name: "done" for cell in cells if cell.is_done(experiment.out)}
    num_left = len(cells) - len(progress.states)
    if num_left:
        estimates = estimate_cells(cells, experiment, num_workers=num_workers)
        progress.estimates = {name: each.seconds for name, each in estimates.items()}
        time_left = duration_text(progress.seconds_left() or 0.0)
        left = f"{num_left} of {len(cells)} pieces of work are left"
        logger.info("%s: about %s with %d at a time", left, time_left, num_workers)
    num_threads = max(1, torch.get_num_threads() // num_workers)
    function = partial(_do_alone, replace(experiment), num_threads)
    pool = Pool(function, num_workers, num_threads=num_threads, is_fresh=True, name_of=attrgetter("name"))
    with shown(progress, _STDERR) as draw, ExitStack() as locks, pool:
        runner = _Runner(pool, progress, experiment, locks)
        for _ in runner.rounds():
            draw()
        draw()


@dataclass(frozen=True)
class _Runner:
    """Gives pieces of work to a pool, and keeps track of them."""

    pool: Pool[Cell, None]
    progress: Progress
    experiment: Experiment
    all_locks: ExitStack
    locks: dict[str, tuple[ExitStack, float]] = field(default_factory=dict)
    """Of the pieces at work, with when they began."""

    def rounds(self) -> Iterator[None]:
        """Begin and end pieces of work until none is left that could be done; yields about once a second."""
        while True:
            self._look()
            for cell in self.progress.cells:
                if self.pool.num_free and self._can_begin(cell):
                    self._begin(cell)
            yield
            if not self.locks and all(self.progress.state(cell) in AT_REST for cell in self.progress.cells):
                return
            if not self.locks:  # others have all that could be done
                time.sleep(_POLL_SECONDS)
            for done in self.pool.wait(_POLL_SECONDS):
                self._end(done)

    def _look(self) -> None:
        """See what others have done, what can no longer be done, and how far the pieces at work are."""
        progress, out = self.progress, self.experiment.out
        for cell in progress.cells:
            if cell.name in self.locks:
                lines = read_metrics(out / cell.name)
                progress.states[cell.name] = f"step {lines[-1]['step']:.0f}" if lines else "at work"
            elif progress.state(cell) in AT_REST:
                continue
            elif cell.is_done(out):
                progress.states[cell.name] = "done"
            elif any(progress.states.get(name) in ("failed", "skipped") for name in cell.needs):
                progress.states[cell.name] = "skipped"

    def _can_begin(self, cell: Cell) -> bool:
        is_free = self.progress.state(cell) in ("waiting", "elsewhere")
        return is_free and all(self.progress.states.get(name) == "done" for name in cell.needs)

    def _begin(self, cell: Cell) -> None:
        """Start a piece of work, unless another command has it or has just done it."""
        lock, states = ExitStack(), self.progress.states
        if not lock.enter_context(lock_if_free(lock_path(self.experiment.out, cell))):
            states[cell.name] = "elsewhere"
        elif cell.is_done(self.experiment.out):
            states[cell.name] = "done"
            lock.close()
        else:
            self.pool.submit(cell)
            states[cell.name] = "begins"
            self.locks[cell.name] = self.all_locks.enter_context(lock), time.perf_counter()

    def _end(self, done: Done[Cell, None]) -> None:
        """Take note of how a piece of work ended."""
        cell, out = done.item, self.experiment.out
        lock, started = self.locks.pop(cell.name)
        if isinstance(done.outcome, BaseException):
            self.progress.states[cell.name] = "failed"
            tell_failure(out, cell, done.outcome)  # a process that was killed has not
            logger.warning("%s failed: %s (all it said: %s)", cell.name, done.outcome, log_path(out, cell))
        else:
            self.progress.states[cell.name] = "done"
            self.progress.seconds[cell.name] = time.perf_counter() - started
        lock.close()


def _do_alone(experiment: Experiment, num_threads: int, cell: Cell) -> None:
    """Do a piece of work in this process, which is its own; what it says goes to its log."""
    torch.set_num_threads(num_threads)
    device = worker_device(resolve_device(experiment.device), worker_number())
    with logged(experiment.out, cell), failure_told(experiment.out, cell):
        do(cell, replace(experiment, device=device))
