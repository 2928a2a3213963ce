"""From the scores and measurements on disk to the results."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import mean

from pydantic import TypeAdapter

from promptlesion.data.phantom import is_phantom
from promptlesion.data.provenance import read_provenance
from promptlesion.evaluation.distances import fidelity_rows
from promptlesion.evaluation.extractors import build_extractors
from promptlesion.evaluation.lesions import by_type, collect_lesions
from promptlesion.evaluation.method_comparison import ALL_SIZES, ALL_TYPES, MethodRow, dice_rows, method_rows
from promptlesion.evaluation.results import FidelityRow
from promptlesion.evaluation.segmentation_metrics import LesionScore
from promptlesion.evaluation.summary import dataset_summary, machine_text
from promptlesion.experiment.cells import (
    FIDELITY_FILE,
    SCORES_FILE,
    Asked,
    cohort_name,
    part_name,
    plan_cells,
    segmentation_name,
)
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import Comparison, ExperimentResults, MethodFidelity, MethodTime
from promptlesion.methods import PROMPTLESION, REAL, method_named
from promptlesion.training.atomic import read_json, write_text
from promptlesion.training.device import resolve_device
from promptlesion.training.run import is_finished_run

_SCORES = TypeAdapter(list[LesionScore])


def collect_results(
    experiment: Experiment, asked: Asked, *, command: str, failures: Mapping[str, str]
) -> ExperimentResults:
    """Put together what is there; pieces that failed, or are not done, are left out and named."""
    prepared, config = experiment.prepared, experiment.config
    root = prepared.dataset.root.resolve()
    fidelity = tuple(_fidelity(experiment, asked))
    return ExperimentResults(
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=experiment.seed,
        seeds=asked.seeds,
        methods=asked.methods,
        machine=machine_text(experiment.device),
        versions={name: version(name) for name in ("promptlesion", "torch", "monai", "numpy")},
        dataset=dataset_summary(prepared, name=root.name, num_synthetic_cases=0, is_phantom=is_phantom(root)),
        main_num_subjects=asked.num_subjects[-1],
        main_ratio=asked.main_ratio,
        comparisons=tuple(_comparisons(experiment, asked)),
        fidelity=fidelity,
        real_against_real=_real_against_real(experiment) if fidelity else (),
        times=tuple(_times(experiment, asked, fidelity)),
        failures=dict(failures),
        unfinished=tuple(
            cell.name for cell in plan_cells(asked) if cell.name not in failures and not cell.is_done(experiment.out)
        ),
        configuration=config.model_dump(mode="json"),
        limits=_limits(experiment, asked),
        num_resamples=config.evaluation.num_resamples,
    )


def _scores(experiment: Experiment, number: int, method: str, ratio: float, seed: int) -> list[LesionScore] | None:
    path = experiment.out / segmentation_name(number, method, ratio, seed) / SCORES_FILE
    return _SCORES.validate_python(read_json(path)["scores"]) if path.is_file() else None


def _training_dice(experiment: Experiment, number: int, asked: Asked) -> dict[str, float]:
    """Return the Dice of real scans alone on the scans it learned from, by type, averaged as that of held-out ones."""
    files = [
        read_json(experiment.out / segmentation_name(number, REAL, 0.0, seed) / SCORES_FILE) for seed in asked.seeds
    ]
    trained = [_SCORES.validate_python(each["training_scores"]) for each in files if "training_scores" in each]
    if len(trained) < len(asked.seeds):
        return {}  # of before there were such scores
    rows = method_rows({REAL: trained}, reference=REAL, seed=experiment.seed, num_resamples=1)
    return {
        row.lesion_type: row.value.value
        for row in dice_rows(rows)
        if row.lesion_type != ALL_TYPES and row.value.value is not None
    }


def _comparisons(experiment: Experiment, asked: Asked) -> Iterator[Comparison]:
    """Compare all methods for every number of real subjects and every ratio; without real scans alone there is none."""
    config = experiment.config.evaluation
    for number in asked.num_subjects:
        prepared = experiment.with_subjects(number)
        real = [_scores(experiment, number, REAL, 0.0, seed) for seed in asked.seeds]
        training_dice = _training_dice(experiment, number, asked) if all(real) else {}
        for ratio in [ratio for ratio in asked.ratios if ratio > 0]:
            by_method = {REAL: real}
            for method in asked.painting:
                found = [_scores(experiment, number, method, ratio, seed) for seed in asked.seeds]
                if any(found):
                    by_method[method] = found
            if not any(real):
                continue
            painting = {method: scores for method, scores in by_method.items() if method != REAL}
            ours = [method for method in painting if method_named(method).family == PROMPTLESION]
            rivals: Sequence[MethodRow] = ()
            if ours and len(painting) > 1:
                rivals = method_rows(
                    painting, reference=ours[-1], seed=experiment.seed, num_resamples=config.num_resamples
                )
            names = [lesion.name for lesion in prepared.dataset.spec.lesions]
            yield Comparison(
                num_subjects=number,
                num_cases=len(prepared.train),
                num_lesions={
                    name: sum(lesion.type_index == index for case in prepared.train for lesion in case.lesions)
                    for index, name in enumerate(names)
                },
                ratio=ratio,
                num_synthetic={
                    method: mean(painted)
                    for method in by_method
                    if (painted := _num_painted(experiment, number, method, ratio, asked))
                },
                training_dice=training_dice,
                rivals=tuple(row for row in rivals if row.size == ALL_SIZES),
                rows=method_rows(by_method, reference=REAL, seed=experiment.seed, num_resamples=config.num_resamples),
            )


def _num_painted(experiment: Experiment, number: int, method: str, ratio: float, asked: Asked) -> list[int]:
    """Count the accepted lesions of each seed's finished cohort; real scans alone have none."""
    folders = [experiment.out / cohort_name(number, method, ratio, seed) for seed in asked.seeds]
    return [
        sum(lesion["is_accepted"] for line in read_provenance(folder).values() for lesion in line["lesions"])
        for folder in folders
        if is_finished_run(folder)
    ]


def _fidelity(experiment: Experiment, asked: Asked) -> Iterator[MethodFidelity]:
    for number in asked.num_subjects:
        for method in asked.painting:
            path = experiment.out / part_name(number) / "fidelity" / method / FIDELITY_FILE
            if path.is_file():
                yield MethodFidelity.model_validate_json(path.read_bytes())


def _real_against_real(experiment: Experiment) -> tuple[FidelityRow, ...]:
    """Compare held-out lesions with training lesions, for scale; measured once."""
    path = experiment.out / "real_against_real.json"
    rows = TypeAdapter(tuple[FidelityRow, ...])
    if not path.is_file():
        dataset, config = experiment.prepared.dataset, experiment.config.evaluation
        names = [lesion.name for lesion in dataset.spec.lesions]
        held_out, trained_on = (
            by_type(collect_lesions(experiment.prepared.part(part), margin_voxels=config.feature_margin_voxels), names)
            for part in ("test", "train")
        )
        extractors = build_extractors(config, window=dataset.window, device=resolve_device(experiment.device))
        found = [
            row
            for extractor in extractors
            for row in fidelity_rows(
                extractor, held_out, trained_on, compared="held-out against training", seed=experiment.seed
            )
        ]
        write_text(path, rows.dump_json(tuple(found)).decode() + "\n")
    return rows.validate_json(path.read_bytes())


def _times(experiment: Experiment, asked: Asked, fidelity: tuple[MethodFidelity, ...]) -> Iterator[MethodTime]:
    """Read from the runs what training took."""
    for number in asked.num_subjects:
        part = experiment.out / part_name(number)
        measured = {each.method: each for each in fidelity if each.num_subjects == number}
        for method in asked.painting:
            if not is_finished_run(part / method):
                continue
            speed = measured.get(method)
            stage1 = part / "autoencoder" / "run.json"
            yield MethodTime(
                num_subjects=number,
                method=method,
                autoencoder_seconds=read_json(stage1)["seconds"] if method_named(method).needs_autoencoder else None,
                training_seconds=read_json(part / method / "run.json")["seconds"],
                volumes_per_minute=speed.volumes_per_minute if speed else None,
                sampling=speed.sampling if speed else "–",
                patch_voxels=speed.patch_voxels if speed else None,
            )


def _limits(experiment: Experiment, asked: Asked) -> tuple[str, ...]:
    """Say what the figures do not show."""
    config = experiment.config
    prepared = experiment.prepared
    limits = [
        f"One split into training, validation and held-out subjects, and one training of every generator (seed "
        f"{experiment.seed}); the {len(asked.seeds)} seeds vary the painted cohort and the segmentation's training.",
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
