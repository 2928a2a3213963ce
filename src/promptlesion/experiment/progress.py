"""The state of every piece of work, as a live table."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from promptlesion.evaluation.wording import duration_text
from promptlesion.experiment.cells import Cell

AT_REST = ("done", "failed", "skipped")
"""States of what nothing is left to do of."""
_SAID = (*AT_REST, "waiting", "begins", "elsewhere")
_LINE_SECONDS = 60.0
_STYLES = {"done": "green", "failed": "bold red", "skipped": "red", "elsewhere": "cyan", "waiting": "dim"}


@dataclass
class Progress:
    """What is known of each cell: `waiting`, `done`, `failed`, `skipped`, `elsewhere`, or how far it is."""

    cells: Sequence[Cell]
    states: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """What each cell took that was done by this command."""
    estimates: dict[str, float] = field(default_factory=dict)
    num_workers: int = 1

    def state(self, cell: Cell) -> str:
        """Return how a cell stands."""
        return self.states.get(cell.name, "waiting")

    def seconds_left(self) -> float | None:
        """Estimate the time to the end, corrected by how long the finished cells took against their estimates."""
        if not self.estimates:
            return None
        left = sum(self.estimates.get(c.name, 0.0) for c in self.cells if self.state(c) not in AT_REST)
        expected = sum(self.estimates.get(name, 0.0) for name in self.seconds)
        correction = sum(self.seconds.values()) / expected if expected > 0 else 1.0
        return left * correction / self.num_workers

    def table(self) -> Table:
        """Draw a row for each method, ratio and number of subjects, and a column for each seed."""
        seeds = sorted({cell.seed for cell in self.cells if cell.kind == "segmentation"})
        num_done = sum(self.state(cell) == "done" for cell in self.cells)
        left = self.seconds_left()
        title = f"{num_done} of {len(self.cells)} done" + (f", about {duration_text(left)} left" if left else "")
        table = Table(box=SIMPLE, title=title, title_justify="left", title_style="bold")
        for name in ("real subjects", "method", "ratio", "trained", *(f"seed {s}" for s in seeds), "fidelity"):
            table.add_column(name)
        by_place = {(c.kind, c.num_subjects, c.method, c.ratio, c.seed): c for c in self.cells}
        for cell in self.cells:
            if cell.kind == "autoencoder":
                table.add_row(str(cell.num_subjects), cell.kind, "", self._text(self.state(cell)))
        rows = [(c.num_subjects, c.method, c.ratio) for c in self.cells if c.kind == "segmentation"]
        for number, method, ratio in dict.fromkeys(rows):
            trained = by_place.get(("method", number, method, 0.0, 0))
            fidelity = by_place.get(("fidelity", number, method, ratio, 0))
            pairs = [
                [by_place.get((kind, number, method, ratio, seed)) for kind in ("cohort", "segmentation")]
                for seed in seeds
            ]
            table.add_row(
                str(number),
                method,
                f"{ratio:g}" if ratio else "",
                self._text(self.state(trained) if trained else ""),
                *(self._pair(pair) for pair in pairs),
                self._text(self.state(fidelity) if fidelity else ""),
            )
        return table

    def _pair(self, pair: Sequence[Cell | None]) -> Text:
        """Show the segmentation's state, or its cohort's until that is there."""
        cohort, segmentation = pair
        if cohort is not None and self.state(cohort) != "done":
            state = self.state(cohort)
            return self._text(state if state == "waiting" else f"painting: {state}")
        return self._text(self.state(segmentation) if segmentation else "")

    @staticmethod
    def _text(state: str) -> Text:
        return Text(state, style=next((style for word, style in _STYLES.items() if word in state), "yellow"))


@contextmanager
def shown(progress: Progress, console: Console) -> Iterator[Callable[[], None]]:
    """Show the table while the block runs, and give what draws it anew; in a log, a line a change and one a minute."""
    if console.is_terminal:
        with Live(progress.table(), console=console, auto_refresh=False) as live:
            yield lambda: live.update(progress.table(), refresh=True)
        return
    told: dict[str, str] = {}
    told_at = time.monotonic()

    def say(text: str) -> None:
        nonlocal told_at
        num_done, told_at = sum(progress.state(each) == "done" for each in progress.cells), time.monotonic()
        console.print(f"[{num_done}/{len(progress.cells)}] {text}", markup=False, highlight=False, soft_wrap=True)

    def tell() -> None:
        for cell in progress.cells:
            state = progress.state(cell)
            if state in _SAID and told.get(cell.name, "waiting") != state:
                told[cell.name] = state
                took = f" in {duration_text(progress.seconds[cell.name])}" if cell.name in progress.seconds else ""
                say(f"{cell.name}: {state}{took}")
        if time.monotonic() - told_at >= _LINE_SECONDS:
            left = progress.seconds_left()
            at_work = [
                f"{cell.name}: {progress.state(cell)}"
                for cell in progress.cells
                if progress.state(cell) not in ("waiting", *AT_REST)
            ]
            say("; ".join([*at_work, *([f"about {duration_text(left)} left"] if left else [])]))

    yield tell
