"""The report: tables and figures as files, and one self-contained HTML file with all of them."""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from promptlesion.data.dataset import open_dataset
from promptlesion.evaluation.figures import save_figure, training_curves_figure
from promptlesion.evaluation.montage import montage_figure, overview_figure
from promptlesion.evaluation.slice_changes import largest_change, montage_columns
from promptlesion.evaluation.wording import duration_text, readable
from promptlesion.experiment.cells import Cell, Design, plan_cells
from promptlesion.experiment.collect import collect_results
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.figures import dice_figure, gallery_figure, sweep_figure
from promptlesion.experiment.results import CellTime, ExperimentResults
from promptlesion.experiment.summary import summary_sentences
from promptlesion.experiment.table import Table, write_tables
from promptlesion.experiment.tables import all_tables
from promptlesion.methods import REAL
from promptlesion.training.atomic import write_text
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import read_metrics

CAPTIONS = {
    "dice": "Dice on the held-out subjects with its interval over subjects; ticks: the single trainings; faint: every "
    "subject; dashed: real scans alone.",
    "figure1": "Figure 1. Healthy scans, their labels, the scans with synthetic lesions, and their masks. The lesions "
    "are taken from the larger half of each type, evenly spread.",
    "overview": "A whole axial slice before and after, and every voxel that changed.",
    "figure2": "Figure 2. The largest held-out lesion of each type that every method can paint, and what each paints "
    "in its place, with its own mask; below: mean HU inside.",
    "subjects": "Dice against the number of real training subjects; every method was trained on these alone.",
    "ratios": "Dice against the ratio of synthetic to real; dashed: real scans alone.",
    "training_curves": "What each stage logged while it trained; dark lines are running means.",
}
_MEASURED_CAPTIONS = {
    "distributions": "Attenuation, texture and size of held-out real lesions and those of {}.",
    "hu_histogram": "HU of all voxels inside held-out real lesions and those of {}; dashed: the means.",
}
"""Of the pictures that measuring each method leaves."""


def write_experiment(
    experiment: Experiment,
    design: Design,
    *,
    command: str,
    failures: Mapping[str, str],
    cells: Sequence[Cell] = (),
    title: str = "PromptLesion experiment",
    times: Sequence[CellTime] = (),
) -> ExperimentResults:
    """Write results, tables, figures and report of what is there; pieces that failed are left out and named.

    Args:
        experiment: dataset, configuration and folder.
        design: what is compared with what.
        command: as typed.
        failures: why pieces failed, by name.
        cells: all pieces of work, where they are not the planned ones.
        title: of the report.
        times: of what was done before the pieces.
    """
    cells = cells or plan_cells(design)
    results = collect_results(experiment, design, cells, title=title, command=command, failures=failures, times=times)
    write_text(experiment.out / "results.json", results.model_dump_json(indent=2) + "\n")
    tables = list(all_tables(results))
    write_tables(tables, experiment.out / "tables")
    done = [cell for cell in cells if cell.is_done(experiment.out)]
    figures = {
        name: save_figure(figure, experiment.out / "figures" / f"{name}.png")
        for name, figure in _draw(experiment, done, results)
    }
    for cell in _of_main(done, "fidelity", results):
        for name in _MEASURED_CAPTIONS:
            path = experiment.out / cell.name / f"{name}.png"
            if path.is_file():
                figures[f"{name}-{cell.method}"] = path
    write_text(experiment.out / "report.html", as_html(results, tables, figures))
    return results


def as_html(results: ExperimentResults, tables: Iterable[Table], figures: Mapping[str, Path]) -> str:
    """Return the page, with the PNG files `figures` embedded; it needs nothing from outside."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("promptlesion.experiment"), PackageLoader("promptlesion.evaluation")]),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(readable=readable, duration=duration_text)
    return environment.get_template("report.html.j2").render(
        results=results,
        summary=summary_sentences(results),
        tables={table.name: table for table in tables},
        pictures={name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in figures.items()},
        captions={name: _caption(name) for name in figures},
        layers=sorted({f"{row.network}, {row.layer}" for each in results.fidelity for row in each.measured.fidelity}),
        configuration=list(_flattened(results.configuration)),
    )


def _caption(name: str) -> str:
    kind, _, method = name.partition("-")
    return _MEASURED_CAPTIONS[kind].format(method) if method else CAPTIONS[name]


def _flattened(configuration: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Walk through a nested configuration as `diffusion.num_steps`, `400`."""
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _draw(experiment: Experiment, done: Sequence[Cell], results: ExperimentResults) -> Iterator[tuple[str, Figure]]:
    """Draw every figure that the results and the pieces that are done allow."""
    if results.main is not None and results.main.rows_of():
        yield "dice", dice_figure(results.main, results.case_scores)
    by_number = [each for each in results.comparisons if each.ratio == results.main_ratio]
    by_ratio = [each for each in results.comparisons if each.num_subjects == results.main_num_subjects]
    if len(by_number) > 1:
        yield "subjects", sweep_figure(by_number, by="num_subjects")
    if len(by_ratio) > 1:
        yield "ratios", sweep_figure(by_ratio, by="ratio")
    metrics = {name: read_metrics(experiment.out / cell.name) for name, cell in _trainings(done, results)}
    if any(metrics.values()):
        yield "training_curves", training_curves_figure(metrics)
    measured = _of_main(done, "fidelity", results)
    if not measured:
        return
    dataset = experiment.prepared.dataset
    cohort = open_dataset(experiment.out / measured[-1].needs[1])
    yield "figure1", montage_figure(montage_columns(cohort, dataset), dataset)
    yield "overview", overview_figure(largest_change(cohort, dataset), dataset)
    with progress_bar("figure 2", len(dataset.spec.lesions)) as bar:
        counted = iter(range(1, len(dataset.spec.lesions) + 1))
        yield (
            "figure2",
            gallery_figure(
                experiment.prepared.part("test"),
                {cell.method: experiment.load(cell.needs[0], cell.method) for cell in measured},
                seed=experiment.seed,
                on_progress=lambda: bar.update(next(counted)),
            ),
        )


def _of_main(cells: Sequence[Cell], kind: str, results: ExperimentResults) -> list[Cell]:
    """Return the pieces of a kind that all real training subjects have a part in."""
    return [cell for cell in cells if (cell.kind, cell.num_subjects) == (kind, results.main_num_subjects)]


def _trainings(done: Sequence[Cell], results: ExperimentResults) -> Iterator[tuple[str, Cell]]:
    """Yield the generators' trainings, and the segmentation's on real scans alone and with the last method."""
    for cell in _of_main(done, "autoencoder", results):
        yield "autoencoder", cell
    for cell in _of_main(done, "method", results):
        yield cell.method, cell
    for cell in _of_main(done, "segmentation", results):
        is_main = cell.ratio == (0.0 if cell.method == REAL else results.main_ratio)
        if is_main and cell.seed == results.seed and cell.method in (REAL, results.methods[-1]):
            yield f"segmentation, {'real' if cell.method == REAL else 'mixed'}", cell
