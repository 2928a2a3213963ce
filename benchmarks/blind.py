"""Can a judge tell painted lesions from real ones? A blind test from dataset folders alone.

    python benchmarks/blind.py draw --real DATA --painted COHORT --part test --per-type 4 --seed 0 --out OUT
    python benchmarks/blind.py score --answers OUT/answers.json --judged JUDGE.json --judged OTHER.json

`draw` writes OUT/blind_TYPE.png: pairs of a real and a painted lesion of nearly the same diameter, as A and B in random
order, each in its axial slice of largest cross-section, below it the same with the mask's outline. Give a judge these
pictures and nothing else: OUT/answers.json and OUT/montage.png (every pair, and which is painted) tell.
A judge answers which of each pair is painted: {"calcified_plaque": ["A", "B", "B", "A"], ...}; the file's name is the
judge's. `score` writes score.md and score.json beside the answers. Guessing gives 0.5. The intervals (95 %, Wilson
1927) take judgements as independent: those of several judges together are somewhat too narrow.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from measure.blind_figures import Pair, blind_figure, cut_tile, diameter_mm, montage_figure
from scipy.stats import binomtest

from promptlesion.data.config import DataConfig
from promptlesion.data.dataset import open_dataset
from promptlesion.data.splits import dataset_split
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions
from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.wording import estimate_text, readable
from promptlesion.training.atomic import read_json, write_json, write_text

_DOTS_PER_INCH = 100
_TOGETHER = "together"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def draw(
    real: Annotated[Path, typer.Option("--real", help="Dataset folder with real lesions.", file_okay=False)],
    painted: Annotated[Path, typer.Option("--painted", help="Cohort that synthesize wrote.", file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for pictures and answers.", file_okay=False)],
    part: Annotated[Literal["train", "val", "test", "all"], typer.Option("--part", help="Real subjects.")] = "val",
    lesions: Annotated[Path | None, typer.Option("--lesions", help="A lesions.toml elsewhere.")] = None,
    per_type: Annotated[int, typer.Option("--per-type", min=1, help="Pairs of each type.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of choice and order.")] = 0,
) -> None:
    """Draw the pictures, and write the answers."""
    dataset, cohort = open_dataset(real, lesions), open_dataset(painted)
    names = [lesion.name for lesion in dataset.spec.lesions]
    chosen = dataset
    if part != "all":
        split = dataset_split(dataset, **DataConfig().split_options())
        chosen = dataset.select({"train": split.train, "val": split.validation, "test": split.test}[part])
    reals = by_type(collect_lesions(chosen, margin_voxels=0), names)
    painteds = by_type(collect_lesions(cohort, source=dataset, margin_voxels=0), names)
    pairs: dict[str, list[Pair]] = {}
    for index, name in enumerate(names):
        generator = np.random.default_rng([seed, index])
        matched = match_by_size(reals[name], painteds[name], per_type, generator)
        if matched:
            tiles = [(cut_tile(dataset, one), cut_tile(cohort, other)) for one, other in matched]
            flips = generator.random(len(tiles)) < 0.5
            pairs[name] = [
                Pair((second, first), "A") if flip else Pair((first, second), "B")
                for (first, second), flip in zip(tiles, flips, strict=True)
            ]
    if not pairs:
        raise typer.BadParameter(f"{real}, part {part}, and {painted}: expected a lesion type that both have")
    out.mkdir(parents=True, exist_ok=True)
    for name, members in pairs.items():
        save_figure(blind_figure(name, members), out / f"blind_{name}.png", dots_per_inch=_DOTS_PER_INCH)
    save_figure(montage_figure(pairs), out / "montage.png", dots_per_inch=_DOTS_PER_INCH)
    answers = {name: [_answer(pair) for pair in members] for name, members in pairs.items()}
    command = " ".join(["python", *sys.argv])
    write_json(out / "answers.json", {"command": command, "part": part, "seed": seed, "pairs": answers})


@app.command()
def score(
    answers: Annotated[Path, typer.Option("--answers", help="answers.json that draw wrote.", dir_okay=False)],
    judged: Annotated[list[Path], typer.Option("--judged", help="A judge's answers; repeatable.", dir_okay=False)],
) -> None:
    """Say how often each judge, and all together, found the painted one."""
    truth = {name: [pair["painted"] for pair in pairs] for name, pairs in read_json(answers)["pairs"].items()}
    rights: dict[str, dict[str, list[bool]]] = {}
    for path in judged:
        if path.stem in {*rights, _TOGETHER}:
            raise typer.BadParameter(f"{path}: expected a name that no other judge's file has, and not {_TOGETHER}")
        rights[path.stem] = right_answers(truth, read_json(path), path)
    if len(rights) > 1:
        rights[_TOGETHER] = {name: [right for one in list(rights.values()) for right in one[name]] for name in truth}
    rows = [row for judge, by_name in rights.items() for row in score_rows(judge, by_name)]
    lines = ["| judge | lesion type | right | share (95 % interval) |", "|---|---|---|---|"]
    for row in rows:
        share = estimate_text(Estimate(value=row["share"], low=row["low"], high=row["high"]), 2)
        lines.append(f"| {row['judge']} | {readable(row['lesion_type'])} | {row['right']} of {row['of']} | {share} |")
    table = "\n".join(lines) + "\n"
    write_json(answers.parent / "score.json", {"answers": str(answers), "rows": rows})
    write_text(answers.parent / "score.md", table)
    print(table)  # noqa: T201


def match_by_size(
    reals: Sequence[LesionCrop], painteds: Sequence[LesionCrop], count: int, generator: np.random.Generator
) -> list[tuple[LesionCrop, LesionCrop]]:
    """Draw real lesions, of different subjects as far as there are, and give each the painted one nearest in diameter.

    No painted lesion is taken twice.
    """
    order = [reals[index] for index in generator.permutation(len(reals))]
    earlier = [sum(other.subject == one.subject for other in order[:index]) for index, one in enumerate(order)]
    left, matched = list(painteds), []
    for index in np.argsort(earlier, kind="stable")[: min(count, len(painteds))]:
        size = math.log(diameter_mm(order[index]))
        nearest = min(range(len(left)), key=lambda other: abs(math.log(diameter_mm(left[other])) - size))
        matched.append((order[index], left.pop(nearest)))
    return matched


def right_answers(
    truth: Mapping[str, Sequence[str]], judgements: Mapping[str, Any], path: Path
) -> dict[str, list[bool]]:
    """Compare a judge's file with the truth; one of other types, numbers or letters is an error."""
    if set(judgements) != set(truth):
        raise typer.BadParameter(f"{path}: expected the lesion types {sorted(truth)}, found {sorted(judgements)}")
    for name, found in judgements.items():
        if not isinstance(found, list) or len(found) != len(truth[name]) or not set(map(str, found)) <= {"A", "B"}:
            raise typer.BadParameter(f"{path}: {name}: expected {len(truth[name])} answers, A or B, found {found}")
    return {name: [a == b for a, b in zip(truth[name], judgements[name], strict=True)] for name in truth}


def score_rows(judge: str, rights: Mapping[str, Sequence[bool]]) -> list[dict[str, Any]]:
    """Count a judge's right answers by type and in all."""
    rows = []
    for name, found in {**rights, "all": [right for one in rights.values() for right in one]}.items():
        interval = binomtest(sum(found), len(found)).proportion_ci(0.95, method="wilson")
        share = sum(found) / len(found)
        counts = {"right": sum(found), "of": len(found)}
        rows.append(
            {"judge": judge, "lesion_type": name, **counts, "share": share, "low": interval.low, "high": interval.high}
        )
    return rows


def _answer(pair: Pair) -> dict[str, Any]:
    tiles = {
        letter: {"case": tile.case, "diameter_mm": round(tile.diameter_mm, 2)}
        for letter, tile in zip("AB", pair.tiles, strict=True)
    }
    return {"painted": pair.painted, **tiles}


if __name__ == "__main__":
    app()
