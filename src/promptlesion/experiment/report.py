"""The experiment's report: tables and figures as files, and one self-contained HTML file with all of them."""

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.method_comparison import ALL_TYPES, MethodRow
from promptlesion.evaluation.montage import montage_figure
from promptlesion.evaluation.report import flattened
from promptlesion.evaluation.slice_changes import montage_columns
from promptlesion.evaluation.wording import readable
from promptlesion.experiment.cells import Asked, part_name
from promptlesion.experiment.collect import collect_results
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.figures import dice_figure, gallery_figure, sweep_figure
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.tables import all_tables, main_comparison, p_text, rivals_table, write_tables
from promptlesion.methods import REAL
from promptlesion.training.atomic import write_text
from promptlesion.training.progress import progress_bar

_CAPTIONS = {
    "dice": "Dice on the held-out subjects with its interval over subjects; ticks: the single trainings; dashed: real "
    "scans alone.",
    "figure1": "Figure 1. Healthy scans, their labels, the scans with synthetic lesions, and their masks. The lesions "
    "are taken from the larger half of each type, evenly spread.",
    "figure2": "Figure 2. The largest held-out lesion of each type that every method can paint, and what each paints "
    "in its place, with its own mask; below: mean HU inside.",
    "subjects": "Dice against the number of real training subjects; every method was trained on these alone.",
    "ratios": "Dice against the ratio of synthetic to real; dashed: real scans alone.",
}

_LEVEL = 0.05


def write_experiment(
    experiment: Experiment, asked: Asked, *, command: str, failures: Mapping[str, str]
) -> ExperimentResults:
    """Write results, tables, figures and report of what is there; pieces that failed are left out and named."""
    results = collect_results(experiment, asked, command=command, failures=failures)
    write_text(experiment.out / "results.json", results.model_dump_json(indent=2) + "\n")
    tables = all_tables(results)
    write_tables(tables, experiment.out / "tables")
    figures = _draw(experiment, asked, results)
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("promptlesion.experiment"), PackageLoader("promptlesion.evaluation")]),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(readable=readable)
    html = environment.get_template("experiment.html.j2").render(
        results=results,
        summary=summary_sentences(results),
        tables=tables,
        pictures={name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in figures.items()},
        captions={name: _CAPTIONS.get(name, name.replace("-", ": ", 1)) for name in figures},
        layers=sorted({f"{row.network}, {row.layer}" for each in results.fidelity for row in each.measured.fidelity}),
        configuration=list(flattened(results.configuration)),
    )
    write_text(experiment.out / "report.html", html)
    return results


def summary_sentences(results: ExperimentResults) -> list[str]:
    """Say of every method in plain words whether it changed the Dice, by the mean over the types and by type."""
    comparison = main_comparison(results)
    if comparison is None:
        return ["Nothing could be compared: there is no segmentation network trained on real scans alone."]
    rows = comparison.dice_rows
    names = {row.lesion_type for row in rows}
    overall = ALL_TYPES if ALL_TYPES in names else next(iter(names))
    sentences = []
    for row in rows:
        if row.lesion_type != overall or row.method == REAL or row.difference is None or row.value.value is None:
            continue
        single = [each for each in rows if each.method == row.method and each.lesion_type != overall]
        sentences.append(f"{row.method}: mean Dice {row.value.value:.3f}, {_verdict(row)}{_by_type(single)}.")
    if comparison.rivals:
        rivals = rivals_table(comparison)
        against = "; ".join(f"less {method} {overall_text}" for method, *_, overall_text in rivals.rows)
        sentences.append(f"{comparison.held_against_rivals}, {rivals.columns[-1]}, paired: {against}.")
    return sentences or ["No method that paints was compared with real scans alone."]


def _by_type(rows: list[MethodRow]) -> str:
    better, worse = ([readable(row.lesion_type) for row in rows if _is_clear(row, sign)] for sign in (1, -1))
    return "".join(
        f"; {word} for {', '.join(names)}" for word, names in (("better", better), ("worse", worse)) if names
    )


def _is_clear(row: MethodRow, sign: int) -> bool:
    """Return whether the interval of the difference lies on one side of zero, and test and trainings agree.

    Of few subjects the interval alone comes out too narrow, and neither it nor the test knows that another training
    would have come out otherwise: every one must lie on that side of real scans alone.
    """
    return _is_clear_over_subjects(row, sign) and _num_trainings(row, sign) == len(row.trainings)


def _is_clear_over_subjects(row: MethodRow, sign: int) -> bool:
    difference = row.difference
    if difference is None or difference.low is None or difference.high is None:
        return False
    if row.p_value is not None and row.p_value >= _LEVEL:
        return False
    return difference.low > 0 if sign > 0 else difference.high < 0


def _num_trainings(row: MethodRow, sign: int) -> int:
    """Return how many trainings lie on one side of real scans alone, the mean of all its trainings."""
    if row.difference is None or row.difference.value is None or row.value.value is None:
        return 0
    real = row.value.value - row.difference.value
    return sum(value is not None and sign * (value - real) > 0 for value in row.trainings)


def _verdict(row: MethodRow) -> str:
    difference = row.difference
    if difference is None or difference.value is None:
        return "not compared"
    tested = "" if row.p_value is None else f", {p_text(row.p_value, 'p = ')}"
    text = f"{difference.value:+.3f} against real scans alone"
    if difference.low is None or difference.high is None:
        return f"{text} (one subject, so no interval)"
    text += f" ({difference.low:+.3f} to {difference.high:+.3f}{tested})"
    for sign, words, side in ((1, "it helped here", "above"), (-1, "it did harm here", "below")):
        if _is_clear(row, sign):
            return f"{text}: {words}"
        if _is_clear_over_subjects(row, sign):
            number = f"{_num_trainings(row, sign)} of {len(row.trainings)} trainings"
            return f"{text}, but only {number} came out {side}: no clear help or harm"
    return f"{text}: no clear help or harm"


def _draw(experiment: Experiment, asked: Asked, results: ExperimentResults) -> dict[str, Path]:
    """Draw every figure that the results allow, each a PNG file of its own."""
    folder = experiment.out / "figures"
    drawn: dict[str, Figure] = {}
    main = main_comparison(results)
    if main is not None:
        drawn["dice"] = dice_figure(main)
    by_number = [each for each in results.comparisons if each.ratio == results.main_ratio]
    by_ratio = [each for each in results.comparisons if each.num_subjects == results.main_num_subjects]
    if len(by_number) > 1:
        drawn["subjects"] = sweep_figure(by_number, by="num_subjects")
    if len(by_ratio) > 1:
        drawn["ratios"] = sweep_figure(by_ratio, by="ratio")
    number = results.main_num_subjects
    painted = [each.method for each in results.fidelity if each.num_subjects == number]
    figures = {name: save_figure(figure, folder / f"{name}.png") for name, figure in drawn.items()}
    if not painted:
        return figures
    dataset = experiment.prepared.dataset
    (cohort, *_) = experiment.cohorts(painted[-1], number, results.main_ratio, asked.seeds[:1])
    figures["figure1"] = save_figure(montage_figure(montage_columns(cohort, dataset), dataset), folder / "figure1.png")
    with progress_bar("figure 2", len(dataset.spec.lesions)) as bar:
        counted = iter(range(1, len(dataset.spec.lesions) + 1))
        gallery = gallery_figure(
            experiment.prepared.part("test"),
            {method: experiment.load(method, number) for method in painted},
            seed=experiment.seed,
            on_progress=lambda: bar.update(next(counted)),
        )
    figures["figure2"] = save_figure(gallery, folder / "figure2.png")
    for method in painted:
        path = experiment.out / part_name(number) / "fidelity" / method / "distributions.png"
        if path.is_file():
            figures[f"distributions-{method}"] = path
    return figures
