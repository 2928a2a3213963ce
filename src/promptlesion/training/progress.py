"""Progress bars for whatever takes more than a few seconds."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_STDERR = Console(stderr=True)


class ProgressBar:
    """A bar that counts to a known total and shows the newest figures beside it."""

    def __init__(self, progress: Progress, description: str, total: int, done: int) -> None:
        """Add a bar to a running display."""
        self._progress = progress
        self._task = progress.add_task(description, total=total, completed=done, figures="")

    def update(self, done: int, figures: Mapping[str, float] | None = None) -> None:
        """Set how much is done, and the figures to show."""
        shown = "  ".join(f"{name} {value:.3g}" for name, value in list((figures or {}).items())[:2])
        self._progress.update(self._task, completed=done, figures=shown)


@contextmanager
def progress_bar(description: str, total: int, *, done: int = 0) -> Iterator[ProgressBar]:
    """Show a bar on standard error while the block runs; where nobody watches, one line at its end.

    Of several processes the main one alone shows it.
    """
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim"),
    )
    is_main = os.environ.get("RANK", "0") == "0"  # as torchrun numbers processes, asked without loading torch
    with Progress(*columns, console=_STDERR, refresh_per_second=4, disable=not is_main) as progress:
        bar = ProgressBar(progress, description, total, done)
        yield bar


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
