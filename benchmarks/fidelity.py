"""Do painted lesions look like real ones? Several cohorts side by side, without networks: what is quick to decide by.

    python benchmarks/fidelity.py --real DATA --painted NAME=COHORT --painted OTHER=COHORT --part val --out OUT

Writes OUT/fidelity.md and fidelity.json, the `appearance` and `asked` of `evaluate fidelity` for every cohort,
OUT/criteria.md, whether painted lesions are near enough, of several cohorts OUT/parts.md, a line a cohort, and
OUT/profiles.png. Ends in a line a lesion type: `*` is met, `~` an interval that reaches over a limit. Give --part val
while anything is still being chosen.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from measure.criteria import CriterionRow, criteria_rows
from measure.criteria_tables import criteria_table, parts_table, summary_table

from promptlesion.data.config import DataConfig
from promptlesion.data.dataset import open_dataset
from promptlesion.evaluation.appearance import (
    Lesions,
    TypeAppearance,
    compare_measured,
    measure_lesions,
    profile_figure,
)
from promptlesion.evaluation.asked_attributes import AskedRow, asked_lesions, asked_rows
from promptlesion.evaluation.fidelity import part_cases
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import by_type, collect_lesions
from promptlesion.evaluation.results import Estimate

_MARGIN_VOXELS = 16


def main(
    real: Annotated[Path, typer.Option("--real", help="Dataset folder with real lesions.", file_okay=False)],
    painted: Annotated[list[str], typer.Option("--painted", help="NAME=COHORT; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for table, JSON and picture.", file_okay=False)],
    part: Annotated[
        Literal["train", "val", "test", "all"], typer.Option("--part", help="Real subjects compared with.")
    ] = "val",
    lesions: Annotated[Path | None, typer.Option("--lesions", help="A lesions.toml elsewhere.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the intervals.")] = 0,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Of the intervals.")] = 2000,
) -> None:
    """Measure, and write table, JSON and picture."""
    dataset = open_dataset(real, lesions)
    names = [lesion.name for lesion in dataset.spec.lesions]
    found_part, cases = part_cases(dataset, part, **DataConfig().split_options())
    real_lesions = by_type(collect_lesions(dataset.select(cases), margin_voxels=_MARGIN_VOXELS), names)
    measured = measure_lesions(real_lesions, groups="subject")
    cohorts: dict[str, Lesions] = {}
    looks: dict[str, tuple[TypeAppearance, ...]] = {}
    asked: dict[str, tuple[AskedRow, ...]] = {}
    criteria: dict[str, tuple[CriterionRow, ...]] = {}
    options = {"seed": seed, "num_resamples": resamples}
    for text in painted:
        name, _, folder = text.partition("=")
        if not folder or name in {"real", *cohorts}:
            raise typer.BadParameter(f"--painted {text}: expected NAME=COHORT, every name once, none real")
        found = collect_lesions(open_dataset(Path(folder)), source=dataset, margin_voxels=_MARGIN_VOXELS)
        cohorts[name] = by_type(found, names)
        of_cohort = measure_lesions(cohorts[name], groups="case")
        looks[name] = compare_measured(measured, of_cohort, **options)
        asked[name] = asked_rows(asked_lesions(Path(folder)), names, **options)
        criteria[name] = criteria_rows(measured, of_cohort, asked[name], **options)
    out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", *sys.argv])
    written = {
        "command": command,
        "part": found_part,
        "appearance": {name: [each.model_dump() for each in types] for name, types in looks.items()},
        "asked": {name: [row.model_dump() for row in rows] for name, rows in asked.items()},
        "criteria": {name: [row.model_dump() for row in rows] for name, rows in criteria.items()},
    }
    (out / "fidelity.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    tables = f"{looks_markdown(looks)}\n{asked_markdown(asked)}"
    summary, parts = summary_table(criteria), parts_table(criteria)
    pages = {"fidelity": tables, "criteria": f"{summary.markdown()}\n{criteria_table(criteria).markdown()}"}
    shown = [tables, summary.plain()]
    if len(criteria) > 1:
        pages["parts"] = parts.markdown()
        shown.append(parts.plain())
    for page, text in pages.items():
        (out / f"{page}.md").write_text(f"`{command}`, part: {found_part}\n\n{text}", encoding="utf-8")
    save_figure(profile_figure(real_lesions, cohorts), out / "profiles.png", dots_per_inch=110)
    print("\n".join(shown), end="")  # noqa: T201


def looks_markdown(looks: Mapping[str, Sequence[TypeAppearance]]) -> str:
    """Lay out every measure of every cohort, type by type, and of each type all measures together."""
    found = [(each.lesion_type, cohort, each) for cohort, types in looks.items() for each in types]
    names = list(dict.fromkeys(name for name, _, _ in found))
    lines = []
    for name, cohort, each in sorted(found, key=lambda one: names.index(one[0])):
        for row in each.measures:
            measure = f"{row.measure} ({row.unit})" if row.unit else row.measure
            texts = [_text(estimate) for estimate in (row.real, row.synthetic, row.difference, row.ratio)]
            lines.append([name, cohort, measure, f"{row.num_real}/{row.num_synthetic}", *texts])
        distances = [_text(each.energy_distance_of_halves), _text(Estimate(value=each.energy_distance))]
        lines.append([name, cohort, "energy_distance", f"{each.num_real}/{each.num_synthetic}", *distances, "–", "–"])
    return _markdown("lesion type, painted, measure, N, real, painted, difference, ratio", lines)


def asked_markdown(asked: Mapping[str, Sequence[AskedRow]]) -> str:
    """Lay out what was painted against what was asked for; nothing where nothing was asked."""
    lines = [
        [row.lesion_type, cohort, row.attribute, str(row.num_lesions)]
        + [_text(each) for each in (row.asked, row.painted, row.absolute_difference)]
        + [_text(each) for each in (row.share_close, row.slope, row.correlation)]
        for cohort, rows in asked.items()
        for row in rows
    ]
    columns = "lesion type, painted, attribute, N, asked, painted, apart, close, slope, correlation"
    return _markdown(columns, lines) if lines else ""


def _markdown(columns: str, lines: Sequence[Sequence[str]]) -> str:
    names = columns.split(", ")
    return "".join(f"| {' | '.join(line)} |\n" for line in (names, ["---"] * len(names), *lines))


def _text(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    interval = "" if estimate.low is None else f" ({estimate.low:.3g} to {estimate.high:.3g})"
    return f"{estimate.value:.3g}{interval}"


if __name__ == "__main__":
    typer.run(main)
