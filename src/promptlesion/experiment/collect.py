"""From the scores and measurements on disk to the results."""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import mean

from pydantic import TypeAdapter

from promptlesion.data.phantom import is_phantom
from promptlesion.data.prepared import PreparedDataset
from promptlesion.data.provenance import read_provenance
from promptlesion.evaluation.method_comparison import ALL_SIZES, ALL_TYPES, MethodRow, method_rows, rows_of
from promptlesion.evaluation.segmentation_metrics import LesionScore
from promptlesion.experiment.cells import FIDELITY_FILE, SCALE_FILE, SCORES_FILE, Cell, Design
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import (
    FIDELITY_ROWS,
    CaseScore,
    CellTime,
    Comparison,
    DatasetSummary,
    ExperimentResults,
    MethodFidelity,
)
from promptlesion.methods import PROMPTLESION, REAL, method_named
from promptlesion.training.atomic import read_json
from promptlesion.training.device import resolve_device
from promptlesion.training.memory import main_memory_bytes

_SCORES = TypeAdapter(list[LesionScore])
_Scores = Mapping[tuple[int, str, float, int], list[LesionScore]]
"""By number of subjects, method, ratio and seed."""


def collect_results(
    experiment: Experiment,
    design: Design,
    cells: Sequence[Cell],
    *,
    title: str,
    command: str,
    failures: Mapping[str, str],
    times: Sequence[CellTime] = (),
) -> ExperimentResults:
    """Put together what is there; pieces that failed, or are not done, are left out and named.

    Args:
        experiment: dataset, configuration and folder.
        design: what is compared with what.
        cells: all pieces of work.
        title: of the report.
        command: as typed.
        failures: why pieces failed, by name.
        times: of what was done before the pieces.
    """
    prepared, config, out = experiment.prepared, experiment.config, experiment.out
    done = [cell for cell in cells if cell.is_done(out)]
    scores = _read_scores(experiment, done, "scores")
    comparisons = tuple(_comparisons(experiment, design, done, scores))
    fidelity = tuple(
        MethodFidelity.model_validate_json((out / cell.name / FIDELITY_FILE).read_bytes())
        for cell in sorted(done, key=lambda cell: cell.num_subjects)
        if cell.kind == "fidelity"
    )
    scale = out / SCALE_FILE
    return ExperimentResults(
        title=title,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=experiment.seed,
        seeds=design.seeds,
        methods=design.methods,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {main_memory_bytes() / 2**30:.0f} GiB, device "
        f"{resolve_device(experiment.device)}",
        versions={name: version(name) for name in ("promptlesion", "torch", "monai", "numpy")},
        dataset=_dataset_summary(prepared),
        main_num_subjects=design.num_subjects[-1],
        main_ratio=design.main_ratio,
        comparisons=comparisons,
        case_scores=tuple(_case_scores(design, scores)) if comparisons else (),
        fidelity=fidelity,
        real_against_real=FIDELITY_ROWS.validate_json(scale.read_bytes()) if scale.is_file() else (),
        times=(*times, *_times(experiment, done, fidelity)),
        failures=dict(failures),
        unfinished=tuple(cell.name for cell in cells if cell.name not in failures and cell not in done),
        configuration=config.model_dump(mode="json"),
        limits=_limits(experiment, design),
        num_resamples=config.evaluation.num_resamples,
        surface_tolerance_mm=config.evaluation.surface_tolerance_mm,
    )


def _dataset_summary(prepared: PreparedDataset) -> DatasetSummary:
    """Count the cases and subjects of each part."""
    root, spec = prepared.dataset.root.resolve(), prepared.dataset.spec
    parts = {"train": prepared.train, "validation": prepared.validation, "test": prepared.test}
    return DatasetSummary(
        name=root.name,
        path=str(prepared.dataset.root),
        is_phantom=is_phantom(root),
        lesion_types=tuple(lesion.name for lesion in spec.lesions),
        spacing_mm=spec.spacing_mm,
        window_hu=spec.window_hu,
        num_cases={part: len(cases) for part, cases in parts.items()},
        num_subjects={part: len({case.subject for case in cases}) for part, cases in parts.items()},
    )


def _read_scores(experiment: Experiment, done: Sequence[Cell], key: str) -> _Scores:
    """Read the scores of all networks, on held-out scans or, by another key, on those they learned from."""
    found = {}
    for cell in done:
        if cell.kind == "segmentation":
            content = read_json(experiment.out / cell.name / SCORES_FILE)
            if key in content:
                place = cell.num_subjects, cell.method, cell.ratio, cell.seed
                found[place] = _SCORES.validate_python(content[key])
    return found


def _case_scores(design: Design, scores: _Scores) -> Iterator[CaseScore]:
    own = {*CaseScore.model_fields} - {"method", "seed"}  # single lesions are not part of the results
    for method in design.methods:
        for seed in design.seeds:
            ratio = 0.0 if method == REAL else design.main_ratio
            for score in scores.get((design.num_subjects[-1], method, ratio, seed), ()):
                yield CaseScore(method=method, seed=seed, **{name: getattr(score, name) for name in own})


def _training_dice(trained: Sequence[list[LesionScore] | None], *, seed: int) -> dict[str, float]:
    """Return the Dice of real scans alone on the scans it learned from, by type, averaged as that of held-out ones."""
    if not all(trained):
        return {}  # of before there were such scores
    rows = method_rows({REAL: trained}, reference=REAL, seed=seed, num_resamples=1)
    return {
        row.lesion_type: row.value.value
        for row in rows_of(rows)
        if row.lesion_type != ALL_TYPES and row.value.value is not None
    }


def _comparisons(experiment: Experiment, design: Design, done: Sequence[Cell], scores: _Scores) -> Iterator[Comparison]:
    """Compare all methods for every number of real subjects and every ratio; without real scans alone there is none."""
    trained_on = _read_scores(experiment, done, "training_scores")
    options = {"seed": experiment.seed, "num_resamples": experiment.config.evaluation.num_resamples}
    for number in design.num_subjects:
        prepared = experiment.with_subjects(number)
        real, trained = (
            [found.get((number, REAL, 0.0, seed)) for seed in design.seeds] for found in (scores, trained_on)
        )
        if not any(real):
            continue
        for ratio in [ratio for ratio in design.ratios if ratio > 0]:
            by_method = {
                method: [scores.get((number, method, ratio, seed)) for seed in design.seeds]
                for method in design.painting
            }
            painting = {method: found for method, found in by_method.items() if any(found)}
            ours = [method for method in painting if method_named(method).family == PROMPTLESION]
            rivals: Sequence[MethodRow] = ()
            if ours and len(painting) > 1:
                rivals = method_rows(painting, reference=ours[-1], **options)
            cohorts = [cell for cell in done if (cell.kind, cell.num_subjects, cell.ratio) == ("cohort", number, ratio)]
            painted = _painted(experiment, [cell for cell in cohorts if cell.method in painting])
            lesions = [lesion.type_index for case in prepared.train for lesion in case.lesions]
            yield Comparison(
                num_subjects=number,
                num_cases=len(prepared.train),
                num_lesions={
                    lesion.name: lesions.count(index) for index, lesion in enumerate(prepared.dataset.spec.lesions)
                },
                ratio=ratio,
                num_synthetic={method: mean(map(sum, counts)) for method, counts in painted.items()},
                num_synthetic_cases={method: mean(map(len, counts)) for method, counts in painted.items()},
                training_dice=_training_dice(trained, seed=experiment.seed),
                rivals=tuple(row for row in rivals if row.size == ALL_SIZES),
                rows=method_rows({REAL: real, **painting}, reference=REAL, **options),
            )


def _painted(experiment: Experiment, cohorts: Sequence[Cell]) -> dict[str, list[list[int]]]:
    """Count the accepted lesions of every case of every cohort, by method."""
    counts: dict[str, list[list[int]]] = {}
    for cell in cohorts:
        lines = read_provenance(experiment.out / cell.name).values()
        counts.setdefault(cell.method, []).append(
            [sum(lesion["is_accepted"] for lesion in line["lesions"]) for line in lines]
        )
    return counts


def _times(experiment: Experiment, done: Sequence[Cell], fidelity: Sequence[MethodFidelity]) -> Iterator[CellTime]:
    """Read what every piece of work took, over all the times it was taken up."""
    measuring = {(each.num_subjects, each.method): each.seconds for each in fidelity}
    for cell in done:
        folder = experiment.out / cell.name
        if cell.kind == "fidelity":
            seconds = measuring[cell.num_subjects, cell.method]
        else:
            seconds = float(read_json(folder / "run.json")["seconds"])
        if cell.kind == "segmentation":
            seconds += float(read_json(folder / SCORES_FILE).get("seconds", 0.0))
        yield CellTime(
            name=cell.name, kind=cell.kind, num_subjects=cell.num_subjects, method=cell.method, seconds=seconds
        )


def _limits(experiment: Experiment, design: Design) -> tuple[str, ...]:
    """Say what the figures do not show."""
    config, prepared = experiment.config, experiment.prepared
    number = len(design.seeds)
    varied = f"the {number} seeds vary the painted cohort and the segmentation's training"
    if number == 1:
        varied = "so is every segmentation network's: another seed changes the Dice by an unknown amount"
    limits = [
        f"One split into training, validation and held-out subjects, and one training of every generator (seed "
        f"{experiment.seed}); {varied}.",
        f"Length of training: {config.autoencoder.num_epochs} epochs of stage 1 (the paper: 1000), "
        f"{config.diffusion.num_steps} steps of stage 2 (60 000), {config.segmentation.num_epochs} epochs of "
        f"segmentation (500); patches of {config.diffusion.patch_voxels} voxels (96).",
        "FID and KID come from an ImageNet network on slices unless the table names another: compare them within this "
        "report only.",
        "The p values are not corrected for the number of comparisons.",
    ]
    if len({case.subject for case in prepared.test}) < 10:
        limits.append("Few held-out subjects: a bootstrap interval comes out too narrow.")
    if is_phantom(prepared.dataset.root):
        limits.insert(0, "A made-up phantom, not patients: nothing here says how the methods do on real scans.")
    return tuple(limits)
