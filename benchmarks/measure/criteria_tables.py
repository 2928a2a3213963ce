"""The criteria laid out: every figure, one line a lesion type, and one line a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from measure.criteria import CRITERIA, INFORMATION, CriterionRow, met
from promptlesion.evaluation.results import Estimate

Cohorts = Mapping[str, Sequence[CriterionRow]]
"""The rows of `criteria_rows`, by the cohort's name."""
_FORMATS = {"HU": "+.1f", "share": "+.2f", "": ".2f"}


@dataclass(frozen=True)
class Cell:
    """A text of a table, and whether it stands out."""

    text: str
    is_met: bool = False


@dataclass(frozen=True)
class Table:
    """A table of texts that both markdown and a terminal can show."""

    columns: tuple[str, ...]
    lines: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """Return the table, what is met in bold."""
        lines = [[f"**{cell.text}**" if cell.is_met else cell.text for cell in line] for line in self.lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in (self.columns, ["---"] * len(self.columns), *lines))

    def plain(self) -> str:
        """Return the table in columns of one width each, what is met with a star."""
        texts = [[cell.text + ("*" if cell.is_met else " ") for cell in line] for line in self.lines]
        widths = [max(map(len, column)) for column in zip([f"{name} " for name in self.columns], *texts, strict=True)]
        rows = [[f"{name} " for name in self.columns], *texts]
        return "".join(
            " ".join(
                text.rjust(width) if index else text.ljust(width)
                for index, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            + "\n"
            for row in rows
        )


def criteria_table(cohorts: Cohorts) -> Table:
    """Lay out every figure of every cohort, type by type, with its interval and what was wanted."""
    columns = ("lesion type", "painted", "criterion", "figure", "N", "wanted", "real or asked", "painted mean")
    found = [(row, cohort) for cohort, rows in cohorts.items() for row in rows]
    names = list(dict.fromkeys(row.lesion_type for row, _ in found))
    lines = [
        (
            *(Cell(text) for text in (row.lesion_type, cohort, row.criterion, row.figure)),
            Cell(f"{row.num_real}/{row.num_painted}"),
            Cell(_wanted(row)),
            *(Cell(_mean(each)) for each in (row.reference, row.painted)),
            Cell(_figure(row, has_interval=True), bool(row.is_met)),
            Cell({True: "yes", False: "no", None: "–"}[row.is_met], bool(row.is_met)),
            Cell(row.interval or "–"),
        )
        for row, cohort in sorted(found, key=lambda one: names.index(one[0].lesion_type))
    ]
    return Table((*columns, "found (95 %)", "met?", "interval"), tuple(lines))


def summary_table(cohorts: Cohorts) -> Table:
    """Lay out one line a cohort and lesion type; `~` where the interval reaches over a limit."""
    lines = [
        (
            *(Cell(text) for text in (name, cohort, f"{rows[-1].num_real}/{rows[-1].num_painted}")),
            *(_summary_cell(rows, criterion) for criterion in (*CRITERIA, *INFORMATION)),
            Cell(f"{sum(bool(met(rows, criterion)) for criterion in CRITERIA)}/{len(CRITERIA)}"),
        )
        for cohort, every in cohorts.items()
        for name, rows in _by_type(every).items()
    ]
    return Table(("lesion type", "painted", "N", *CRITERIA, *INFORMATION, "met"), tuple(lines))


def parts_table(cohorts: Cohorts) -> Table:
    """Lay out one line a cohort: means over lesion types, of differences those of their size, and what is met."""
    lines = []
    for cohort, rows in cohorts.items():
        types = list(_by_type(rows).values())
        num_met = {name: sum(bool(met(each, name)) for each in types) for name in CRITERIA}
        cells = [
            Cell(_over_types(types, name) + (f" ({num_met[name]}/{len(types)})" if name in num_met else ""), is_all)
            for name in (*CRITERIA, *INFORMATION)
            for is_all in [bool(types) and num_met.get(name) == len(types)]
        ]
        num_all = Cell(f"{sum(num_met.values())}/{len(CRITERIA) * len(types)}")
        lines.append((Cell(cohort), Cell(str(len(types))), *cells, num_all))
    return Table(("painted", "types", *CRITERIA, *INFORMATION, "met"), tuple(lines))


def _by_type(rows: Sequence[CriterionRow]) -> dict[str, list[CriterionRow]]:
    groups: dict[str, list[CriterionRow]] = {}
    for row in rows:
        groups.setdefault(row.lesion_type, []).append(row)
    return groups


def _shown(rows: Sequence[CriterionRow], criterion: str) -> list[CriterionRow]:
    """Return the figures that a short table shows of a criterion: those with limits, or the one there is."""
    found = [row for row in rows if row.criterion == criterion]
    return [row for row in found if row.is_met is not None] or found


def _summary_cell(rows: Sequence[CriterionRow], criterion: str) -> Cell:
    shown = _shown(rows, criterion)
    is_across = any(row.interval == "across" for row in shown)
    texts = " ".join(_figure(row) for row in shown)
    return Cell(f"{'~' if is_across else ''}{texts}", bool(met(rows, criterion)))


def _over_types(types: Sequence[Sequence[CriterionRow]], criterion: str) -> str:
    """Return the mean over types of a criterion's first figure; of a difference, of its size."""
    firsts = [_shown(rows, criterion)[0] for rows in types]
    values = [abs(row.found.value) for row in firsts if row.found.value is not None]
    return format(float(np.mean(values)), _FORMATS[firsts[0].unit].lstrip("+")) if values else "–"


def _figure(row: CriterionRow, *, has_interval: bool = False) -> str:
    if row.found.value is None:
        return "–"
    texts = [format(value, _FORMATS[row.unit]) for value in _values(row.found)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})" if has_interval and len(texts) == 3 else texts[0]


def _values(estimate: Estimate) -> list[float]:
    return [each for each in (estimate.value, estimate.low, estimate.high) if each is not None]


def _mean(estimate: Estimate) -> str:
    return "–" if estimate.value is None else f"{estimate.value:.3g}"


def _wanted(row: CriterionRow) -> str:
    low, high = (None if each is None else f"{each:.3g}" for each in (row.at_least, row.at_most))
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}" if high is not None else "–"
