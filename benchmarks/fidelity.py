"""Do painted lesions look like real ones? Brightness, edge, mottling and noise by type, from dataset folders alone.

    python benchmarks/fidelity.py --real DATA --painted NAME=COHORT --part test --out OUT

Writes OUT/fidelity.md and fidelity.json: a line for every type and measure with the mean of the real lesions, that of
each cohort's, and the difference; OUT/profiles.png: HU across the lesions' edge. Intervals are of whole subjects drawn
again (real ones), and of whole cases (painted ones). The energy distance (Szekely & Rizzo 2013) compares the measures
of a type all together, each in standard deviations of the real ones; beside it stands that of one half of the real
subjects against the other. Give --part val while anything is still being chosen.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from jaxtyping import Float64
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

from promptlesion.data.config import DataConfig
from promptlesion.data.dataset import open_dataset
from promptlesion.data.lesion_appearance import PROFILE_MM, UNITS, appearance, edge_profile
from promptlesion.data.splits import dataset_split
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions

Values = Float64[np.ndarray, "lesions measures"]
_MARGIN_VOXELS = 16
_REAL = "real"


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
    chosen = dataset
    if part != "all":
        split = dataset_split(dataset, **DataConfig().split_options())
        chosen = dataset.select({"train": split.train, "val": split.validation, "test": split.test}[part])
    sides = {_REAL: by_type(collect_lesions(chosen, margin_voxels=_MARGIN_VOXELS), names)}
    for text in painted:
        name, _, folder = text.partition("=")
        if not folder or name in sides:
            raise typer.BadParameter(f"--painted {text}: expected NAME=COHORT, every name once, none {_REAL}")
        found = collect_lesions(open_dataset(Path(folder)), source=dataset, margin_voxels=_MARGIN_VOXELS)
        sides[name] = by_type(found, names)
    rows = [row for name in names for row in type_rows(name, sides, seed=seed, num_resamples=resamples)]
    out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", *sys.argv])
    (out / "fidelity.json").write_text(json.dumps({"command": command, "part": part, "rows": rows}, indent=1) + "\n")
    (out / "fidelity.md").write_text(f"`{command}`\n\n{as_markdown(rows)}", encoding="utf-8")
    profile_figure(names, sides).savefig(out / "profiles.png", dpi=110)
    print(as_markdown(rows))  # noqa: T201


def type_rows(
    name: str, sides: Mapping[str, Mapping[str, Sequence[LesionCrop]]], *, seed: int, num_resamples: int
) -> list[dict[str, object]]:
    """Compare the lesions of one type, measure by measure, and all measures together."""
    measured = {side: (_values(found[name]), _units(side, found[name])) for side, found in sides.items() if found[name]}
    if _REAL not in measured or len(measured) < 2:
        return []
    real, subjects = measured[_REAL]
    generator = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for side, (values, cases) in measured.items():
        if side == _REAL:
            continue
        for column, measure in enumerate(UNITS):
            first = _resampled_means(real[:, column], subjects, generator, num_resamples)
            second = _resampled_means(values[:, column], cases, generator, num_resamples)
            real_mean, painted_mean = _nanmean(real[:, column]), _nanmean(values[:, column])
            if np.isnan(real_mean) or np.isnan(painted_mean):
                continue
            rows.append(
                {
                    "lesion_type": name,
                    "painted": side,
                    "measure": measure,
                    "unit": UNITS[measure],
                    "num_real": int(np.isfinite(real[:, column]).sum()),
                    "num_painted": int(np.isfinite(values[:, column]).sum()),
                    "real": [real_mean, *_interval(first)],
                    "mean": [painted_mean, *_interval(second)],
                    "difference": [painted_mean - real_mean, *_interval(second - first)],
                    "ratio": [painted_mean / real_mean, *_interval(second / first)] if real_mean else None,
                }
            )
        halves = _halves(subjects, generator)
        rows.append(
            {
                "lesion_type": name,
                "painted": side,
                "measure": "energy_distance",
                "unit": "",
                "num_real": len(real),
                "num_painted": len(values),
                "real": [energy_distance(real[halves], real[~halves], real), np.nan, np.nan],
                "mean": [energy_distance(real, values, real), np.nan, np.nan],
                "difference": None,
                "ratio": None,
            }
        )
    return rows


def energy_distance(first: Values, second: Values, scale: Values) -> float:
    """Return the energy distance of two sets, each measure in the standard deviations of a third; NaN is its mean."""
    if len(first) < 2 or len(second) < 2:
        return float("nan")
    mean, std = np.nanmean(scale, axis=0), np.nanstd(scale, axis=0)
    kept = np.isfinite(mean) & (std > 0)
    x, y = (np.nan_to_num((each[:, kept] - mean[kept]) / std[kept]) for each in (first, second))
    within = [cdist(each, each).sum() / (len(each) * (len(each) - 1)) for each in (x, y)]
    return float(2 * cdist(x, y).mean() - sum(within))


def as_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Lay the rows out as a table."""
    lines = [
        "| lesion type | painted | measure | N | real | painted | difference | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        unit = f" ({row['unit']})" if row["unit"] else ""
        lines.append(
            f"| {row['lesion_type']} | {row['painted']} | {row['measure']}{unit} "
            f"| {row['num_real']}/{row['num_painted']} | "
            + " | ".join(_text(row[key]) for key in ("real", "mean", "difference", "ratio"))
            + " |"
        )
    return "\n".join(lines) + "\n"


def profile_figure(names: Sequence[str], sides: Mapping[str, Mapping[str, Sequence[LesionCrop]]]) -> Figure:
    """Draw the mean HU across the edge, a panel a type and a line a side."""
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for side, found in sides.items():
            if found[name]:
                profiles = np.array([edge_profile(one.hu, one.mask, one.spacing_mm) for one in found[name]])
                means = [_nanmean(profiles[:, index]) for index in range(len(PROFILE_MM))]
                axes.plot(PROFILE_MM, means, "k" if side == _REAL else "-", label=side)
        axes.axvline(0, color="0.8", linewidth=0.8)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("depth (mm)", fontsize=8)
        axes.legend(fontsize=7, frameon=False)
    return figure


def _values(lesions: Sequence[LesionCrop]) -> Values:
    return np.array([list(appearance(one.hu, one.mask, one.spacing_mm).values()) for one in lesions])


def _units(side: str, lesions: Sequence[LesionCrop]) -> list[str]:
    """Return what each lesion is drawn again with: its subject, or its painted case."""
    return [lesion.subject if side == _REAL else lesion.case for lesion in lesions]


def _resampled_means(
    values: Float64[np.ndarray, " lesions"], units: Sequence[str], generator: np.random.Generator, number: int
) -> Float64[np.ndarray, " resamples"]:
    """Return the mean over lesions of units drawn again and again; those whose value is NaN do not count."""
    known = np.isfinite(values)
    _, index = np.unique(units, return_inverse=True)
    sums, counts = (np.bincount(index, weights) for weights in (np.where(known, values, 0.0), known.astype(float)))
    draws = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), number)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (draws @ sums) / (draws @ counts)


def _halves(units: Sequence[str], generator: np.random.Generator) -> np.ndarray:
    names = generator.permutation(np.unique(units))
    return np.isin(units, names[: len(names) // 2])


def _interval(draws: Float64[np.ndarray, " resamples"]) -> list[float]:
    known = draws[np.isfinite(draws)]
    return [float(value) for value in np.quantile(known, [0.025, 0.975])] if len(known) else [np.nan, np.nan]


def _nanmean(values: Float64[np.ndarray, " lesions"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _text(estimate: object) -> str:
    if estimate is None:
        return "–"
    value, low, high = (f"{each:.3g}" for each in estimate)  # type: ignore[attr-defined]
    return value if low == "nan" else f"{value} ({low} to {high})"


if __name__ == "__main__":
    typer.run(main)
