"""A table of texts, in any of three forms: CSV, LaTeX, and the report's HTML."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promptlesion.training.atomic import write_text

_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "–": "--", "³": "$^3$", "<": "$<$", ">": "$>$", "≥": r"$\geq$", "±": r"$\pm$"}
)


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns."""

    name: str
    """Of its files."""
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write every table as CSV and LaTeX."""
    for table in tables:
        write_text(folder / f"{table.name}.csv", as_csv(table))
        write_text(folder / f"{table.name}.tex", as_latex(table))


def as_csv(table: Table) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """Return a table as LaTeX that needs the package booktabs alone."""
    lines = [
        r"\begin{table}",
        r"\caption{" + _escaped(table.caption) + "}",
        r"\begin{tabular}{l" + "r" * (len(table.columns) - 1) + "}",
        r"\toprule",
        " & ".join(_escaped(text) for text in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(_escaped(text) for text in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace(">=", "≥").translate(_LATEX)
