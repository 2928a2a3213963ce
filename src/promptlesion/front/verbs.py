"""Verbs of the command line as functions: a folder goes in, a folder comes out, and what was found is returned."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from promptlesion.check import dataset_check
from promptlesion.check.dataset_check import DatasetCheck
from promptlesion.check.report import write_check
from promptlesion.config import Config
from promptlesion.data import dataset as dataset_folder
from promptlesion.data.dataset import Dataset
from promptlesion.data.splits import dataset_split
from promptlesion.evaluation.fidelity import Fidelity
from promptlesion.evaluation.folder_fidelity import evaluate_folders
from promptlesion.evaluation.prediction_folders import ComparedPredictions, compare_predictions
from promptlesion.experiment.cells import ask
from promptlesion.experiment.demo import run_demo
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.run import run_experiment
from promptlesion.front.settings import Folder, as_config, as_path, is_test
from promptlesion.methods import compared_names
from promptlesion.segmentation.predict import chosen_cases, segment_dataset
from promptlesion.training.atomic import write_json
from promptlesion.training.progress import progress_bar, progress_reports

ALL_METHODS = ",".join(compared_names())


def open_dataset(data: Folder, *, lesions: Folder | None = None) -> Dataset:
    """Open a dataset folder, nnU-Net v2 raw with a `lesions.toml`, or one elsewhere; no scan is read.

    Raises:
        DatasetError: what does not fit together.
    """
    return dataset_folder.open_dataset(Path(data), as_path(lesions))


def check_dataset(
    dataset: Folder,
    *,
    out: Folder | None = None,
    lesions: Folder | None = None,
    config: Config | str = "default",
    device: str = "auto",
    workers: int = 1,
) -> DatasetCheck:
    """Say what is wrong with a dataset and what training on it will cost, and write check.html and check.json.

    Args:
        dataset: the folder; its `lesions.toml` may be missing: one to start from is written.
        out: folder of the report, by default `check` in the dataset's.
        lesions: a `lesions.toml` elsewhere.
        config: a preset's name, or what `resolve_config` gave; as everywhere here.
        device: that training will use.
        workers: processes that read cases.
    """
    with progress_reports("checking") as on_progress:
        checked = dataset_check.check_dataset(
            Path(dataset),
            out=as_path(out),
            lesions=as_path(lesions),
            config=as_config(config),
            device=device,
            num_workers=workers,
            on_progress=on_progress,
        )
    write_check(checked)
    return checked


def segment(
    model: Folder,
    data: Folder,
    out: Folder,
    *,
    part: str = "all",
    mirror: bool = False,
    lesions: Folder | None = None,
    device: str = "auto",
) -> list[str]:
    """Write a label map for every scan of a dataset folder, and return the names of the cases.

    Args:
        model: finished segmentation run.
        data: dataset folder.
        out: folder of the label maps.
        part: `all`, or `test`: only subjects that the network was neither trained nor selected on.
        mirror: mean over the mirror images of every window.
        lesions: a `lesions.toml` elsewhere.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        ValueError: no case is left, or the dataset is not like the one the network was trained on.
    """
    dataset = chosen_cases(Path(model), open_dataset(data, lesions=lesions), is_unseen_only=is_test(part))
    with progress_bar("segmenting", len(dataset.cases)) as bar:
        segment_dataset(
            Path(model),
            dataset,
            Path(out),
            device=device,
            is_mirrored=mirror,
            on_progress=lambda done, _: bar.update(done),
        )
    return [case.name for case in dataset.cases]


def evaluate(
    data: Folder,
    predictions: Folder | Mapping[str, Sequence[Folder]],
    *,
    reference: str | None = None,
    out: Folder | None = None,
    part: str = "all",
    lesions: Folder | None = None,
    seed: int = 0,
    config: Config | str = "default",
) -> ComparedPredictions:
    """Score label maps against a dataset's own: Dice, surface Dice, HD95, lesions found and false ones.

    Args:
        data: dataset folder.
        predictions: a folder that `segment` wrote, or several by the name of their method.
        reference: the method the others are compared with, by default the first.
        out: JSON file for every figure.
        part: `all`, or `test`: the cases of the split's held-out subjects alone.
        lesions: a `lesions.toml` elsewhere.
        seed: of the intervals and tests.
        config: a preset's name, or what `resolve_config` gave.

    Raises:
        ValueError: no label map at all, one that does not fit its scan, or an unknown reference or part.
    """
    given = predictions if isinstance(predictions, Mapping) else {str(predictions): [predictions]}
    folders = {name: [Path(folder) for folder in several] for name, several in given.items()}
    if not folders:
        raise ValueError("predictions: expected a folder of label maps, or several by name; found none")
    resolved, dataset = as_config(config), open_dataset(data, lesions=lesions)
    if is_test(part):
        dataset = dataset.select(dataset_split(dataset, **resolved.data.split_options()).test)
    compared = compare_predictions(dataset, folders, reference=reference, seed=seed, config=resolved.evaluation)
    if out is not None:
        write_json(Path(out), compared.as_json())
    return compared


def evaluate_fidelity(
    real: Folder,
    synthetic: Folder,
    *,
    out: Folder | None = None,
    figure: Folder | None = None,
    training: Folder | None = None,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "default",
) -> Fidelity:
    """Compare painted lesions with real ones: FID, KID, how HU, texture and size are spread, and copies.

    Args:
        real: dataset folder with real lesions.
        synthetic: dataset folder that `synthesize` wrote.
        out: JSON file for every figure.
        figure: PNG of the distributions.
        training: dataset folder the generator was trained on, all of it; by default the training part of `real`.
        lesions: a `lesions.toml` elsewhere.
        seed: of the intervals.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Raises:
        ValueError: no painted lesion of a type that the real scans have.
    """
    resolved = as_config(config)
    measured = evaluate_folders(
        open_dataset(real, lesions=lesions),
        open_dataset(synthetic),
        training=None if training is None else open_dataset(training, lesions=lesions),
        split=resolved.data.split_options(),
        config=resolved.evaluation,
        seed=seed,
        device=device,
        figure=as_path(figure),
    )
    if out is not None:
        write_json(Path(out), measured.model_dump(mode="json"))
    return measured


def experiment(
    data: Folder,
    out: Folder,
    *,
    methods: str = ALL_METHODS,
    seeds: int = 3,
    ratios: str = "1",
    real_fractions: str = "1",
    lesions_per_type: int | None = None,
    workers: int = 1,
    report_only: bool = False,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> ExperimentResults:
    """Compare real scans alone with every method on held-out subjects: tables, figures, report.html in `out`.

    Args:
        data: dataset folder.
        out: the experiment's folder; what is done there is not done again.
        methods: what to compare, with commas; real is training on real scans alone.
        seeds: trainings of each segmentation network, each with its own cohort.
        ratios: synthetic scans per real one, with commas.
        real_fractions: shares of the real training subjects, with commas.
        lesions_per_type: to paint into a cohort; by default as many as the real scans have.
        workers: pieces of work at a time.
        report_only: report on what is done so far.
        lesions: a `lesions.toml` elsewhere.
        seed: the first of the seeds.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Returns:
        What was measured; `failures` says why pieces failed, `unfinished` what is not done.
    """
    planned = Experiment(Path(data), as_path(lesions), Path(out), as_config(config), seed, device, lesions_per_type)
    asked = ask(
        num_subjects=planned.num_subjects,
        first_seed=seed,
        methods=methods,
        num_seeds=seeds,
        ratios=ratios,
        real_fractions=real_fractions,
    )
    return run_experiment(planned, asked, command=_command(), num_workers=workers, is_report_only=report_only)[0]


def demo(
    out: Folder,
    *,
    data: Folder | None = None,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> ExperimentResults:
    """Run a small experiment in this process: real scans alone against PromptLesion, by default on the phantom.

    Args:
        out: folder of all runs, the synthetic dataset, the results and the report; what is done there stays.
        data: dataset folder; without one the built-in phantom is made in `out`/data.
        lesions: a `lesions.toml` elsewhere.
        seed: of everything random but the split.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.
    """
    resolved, root = as_config(config), Path(data or Path(out) / "data")
    num_cases = resolved.demo.synthetic_cases
    planned = Experiment(root, as_path(lesions), Path(out), resolved, seed, device, num_synthetic_cases=num_cases)
    return run_demo(planned, command=_command(), is_phantom=data is None)


def _command() -> str:
    return " ".join(["promptlesion", *sys.argv[1:]])
