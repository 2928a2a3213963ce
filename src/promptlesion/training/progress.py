"""Progress of whatever takes more than a few seconds: a bar in a terminal, lines anywhere else."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_STDERR = Console(stderr=True, markup=False, emoji=False)  # a folder's name may hold brackets and colons


_LINE_SHARE = 0.1
_LINE_SECONDS = 60.0
"""In a log, a line comes after so much of the work or of the time, whichever is first,"""
_LEAST_SECONDS = 1.0
"""but what is done in a moment says only that it began and ended."""


@runtime_checkable
class ProgressBar(Protocol):
    """Counts to a known total and shows the newest figures beside it."""

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Set how much is done, and the figures to show."""


@contextmanager
def progress_bar(description: str, total: int, *, done: int = 0) -> Iterator[ProgressBar]:
    """Show on standard error how far the block is: a bar in a terminal, else lines that can be read in a log.

    Lines come at the start, after every tenth of the work or minute, and at the end. Of several processes the main one
    alone shows anything.
    """
    is_main = os.environ.get("RANK", "0") == "0"  # as torchrun numbers processes, asked without loading torch
    if is_main and not _STDERR.is_terminal:
        lines = _Lines(description, total, done)
        yield lines
        lines.end()
        return
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim", markup=False),
    )
    with Progress(*columns, console=_STDERR, refresh_per_second=4, disable=not is_main) as progress:
        yield _Bar(progress, description, total, done)


class _Bar:
    def __init__(self, progress: Progress, description: str, total: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, completed=done, figures="")

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self._progress.update(self._task, completed=done, figures=_figures_text(figures))


class _Lines:
    def __init__(self, description: str, total: int, done: int) -> None:
        self._description, self._total = description, total
        self._first = self._told = self._done = done
        self._started = self._told_at = time.monotonic()
        self._figures = ""
        self._say(f"begins, {total} to do" if not done else f"goes on at {done} of {total}")

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        self._done, self._figures = done, _figures_text(figures)
        waited = time.monotonic() - self._told_at
        is_due = done - self._told >= _LINE_SHARE * self._total and (waited >= _LEAST_SECONDS or done == self._total)
        if done > self._told and (is_due or waited >= _LINE_SECONDS):
            self._tell()

    def end(self) -> None:
        """Say where it ended, if that is not said yet."""
        if self._done > self._told:
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        elapsed = now - self._started
        left = elapsed / max(self._done - self._first, 1) * (self._total - self._done)
        self._told, self._told_at = self._done, now
        share = self._done / max(self._total, 1)
        times = f"{_clock(elapsed)} so far" + (f", about {_clock(left)} left" if left > 0 else "")
        self._say(f"{self._done} of {self._total} ({share:.0%}), {times}  {self._figures}".rstrip())

    def _say(self, text: str) -> None:
        _STDERR.print(f"{self._description}: {text}", highlight=False, soft_wrap=True)


def _figures_text(figures: Mapping[str, float] | None) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in list((figures or {}).items())[:2])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


@contextmanager
def progress_reports(description: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to be told (done, total), which shows a bar from its first call on: none for a quick refusal."""
    bars: list[ProgressBar] = []
    with ExitStack() as shown:

        def report(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(progress_bar(description, total)))
            bars[0].update(done)

        yield report
