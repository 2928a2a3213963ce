"""What a terminal shows of an experiment: Dice, in plain words what every method did, and what it paints."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

from promptlesion.evaluation.terminal import fidelity_parts
from promptlesion.experiment import table as texts
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.summary import summary_sentences
from promptlesion.experiment.tables import all_tables

_MEASURED_OF = ("method", "real subjects", "encoder", "masks")
_IN_FILES_ALONE = ("N", "relative")


def experiment_parts(results: ExperimentResults) -> Iterator[RenderableType]:
    """Yield the scores, in plain words what every method did, and whether the painted lesions are right."""
    tables = {table.name: table for table in all_tables(results)}
    for name in ("dice", "surface-dice"):
        if name in tables:
            yield from _below_each_other(tables[name])
    yield from summary_sentences(results)
    for name in ("intensity", "prompt-switch"):
        if name in tables and tables[name].rows:
            yield from _narrow(tables[name])
    distances = [
        row.model_copy(update={"compared": f"held-out against {each.method}"})
        for each in results.fidelity
        for row in each.measured.fidelity
    ]
    if distances:
        yield from fidelity_parts([*distances, *results.real_against_real])


def _below_each_other(scores: texts.Table) -> Iterator[RenderableType]:
    """Show types below each other; side by side they would not fit a terminal."""
    rows = []
    for column, name in enumerate(scores.columns[2::2]):
        for index, (method, _, *cells) in enumerate(scores.rows):
            rows.append(("" if index else name, method, *cells[2 * column : 2 * column + 2]))
    yield scores.caption
    yield _table(
        ("lesion type", "method", scores.name.replace("-", " ").replace("dice", "Dice"), "less real (p)"), rows
    )


def _narrow(measured: texts.Table) -> Iterator[RenderableType]:
    """Show what was measured; what it was measured of stands above it where that is the same in every row."""
    alike, kept = [], []
    for name, column in zip(measured.columns, zip(*measured.rows, strict=True), strict=True):
        if name in _MEASURED_OF and len(set(column)) == 1:
            alike.append(f"{name} {column[0]}")
        elif name not in _IN_FILES_ALONE:
            kept.append((name, column))
    yield measured.caption
    yield ", ".join(alike)
    yield _table([name for name, _ in kept], list(zip(*(column for _, column in kept), strict=True)))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, box=SIMPLE)
    for column in table.columns:
        column.overflow = "fold"  # rather a name on two lines than one cut off
    for row in rows:
        table.add_row(*row)
    return table
