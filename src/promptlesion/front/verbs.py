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
from promptlesion.evaluation.reconstruction import ReconstructionRow
from promptlesion.experiment import run
from promptlesion.experiment.cells import Asked, Question, ask
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.plan import PlannedCell
from promptlesion.experiment.reconstruction import measure_reconstruction
from promptlesion.experiment.results import ExperimentResults
from promptlesion.front.settings import as_config
from promptlesion.methods import PROMPTLESION
from promptlesion.segmentation.predict import chosen_cases, segment_dataset
from promptlesion.stages import Job, train_first, train_second, train_third
from promptlesion.stages import synthesize as paint_cohort
from promptlesion.training.atomic import write_json
from promptlesion.training.progress import progress_bar, progress_reports
from promptlesion.training.run import Run

Folder = str | Path
QUESTION = Question()
"""All methods, three seeds, 1 : 1, all real subjects."""
_OF_STAGES = {"autoencoder": (), "diffusion": ("method", "autoencoder", "types"), "segmentation": ("synthetic",)}


def open_dataset(data: Folder, *, lesions: Folder | None = None) -> Dataset:
    """Open a dataset folder, nnU-Net v2 raw with a `lesions.toml`, or one elsewhere; no scan is read.

    Raises:
        DatasetError: what does not fit together.
    """
    return dataset_folder.open_dataset(Path(data), _path(lesions))


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
            out=_path(out),
            lesions=_path(lesions),
            config=as_config(config),
            device=device,
            num_workers=workers,
            on_progress=on_progress,
        )
    write_check(checked)
    return checked


def train(
    stage: str,
    data: Folder,
    out: Folder,
    *,
    config: Config | str = "default",
    seed: int = 0,
    device: str = "auto",
    lesions: Folder | None = None,
    cache: Folder | None = None,
    method: str | None = None,
    autoencoder: Folder | None = None,
    types: Sequence[str] = (),
    synthetic: Folder | None = None,
) -> Run:
    """Train one of the three stages, or go on with an interrupted run.

    Args:
        stage: `autoencoder`, `diffusion` or `segmentation`.
        data: dataset folder.
        out: the run's folder.
        config: a preset's name, or what `resolve_config` gave.
        seed: of everything random but the split.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        lesions: a `lesions.toml` elsewhere.
        cache: folder of prepared scans; by default `cache` beside `out`.
        method: diffusion only: the method that paints, by default the paper's.
        autoencoder: diffusion only: a finished run of stage 1, for the methods that have one.
        types: diffusion of DiffTumor only: the lesion types whose model is trained, by default all.
        synthetic: segmentation only: a dataset folder that `synthesize` wrote, mixed in.

    Raises:
        ValueError: an option of another stage, or data or settings that are not as they should be.
    """
    given = {"method": method, "autoencoder": autoencoder, "types": types, "synthetic": synthetic}
    if stage not in _OF_STAGES:
        raise ValueError(f"stage: expected {', '.join(_OF_STAGES)}; found {stage!r}")
    for name in (name for name, value in given.items() if value and name not in _OF_STAGES[stage]):
        owner = next(owner for owner, names in _OF_STAGES.items() if name in names)
        raise ValueError(f"{name}: expected with the stage {owner} alone; found with {stage}")
    job = Job(Path(data), Path(out), as_config(config), _path(lesions), _path(cache), seed, device)
    if stage == "autoencoder":
        return train_first(job)
    if stage == "diffusion":
        return train_second(job, method or PROMPTLESION, autoencoder=_path(autoencoder), types=types)
    return train_third(job, synthetic=_path(synthetic))


def synthesize(
    data: Folder,
    model: Folder,
    out: Folder,
    counts: Mapping[str, int],
    *,
    method: str | None = None,
    shapes: Sequence[str] = (),
    workers: int | None = None,
    accept_all: bool = False,
    dicom: bool = False,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "default",
) -> Run:
    """Paint lesions into the scans of the training subjects and write them as a dataset folder.

    Args:
        data: dataset folder.
        model: finished run of a method that paints.
        out: the dataset folder to write; a cohort that was stopped goes on.
        counts: lesions to paint, by type.
        method: refuse a run of another one.
        shapes: masks to draw a type's shapes from, `TYPE=PATH` or `TYPE=PATH:LABEL`.
        workers: processes on this machine; by default one a core, or one on a GPU.
        accept_all: no quality filter; what it measures is recorded all the same.
        dicom: also a DICOM series and segmentation of every case, in `out/dicom`.
        lesions: a `lesions.toml` elsewhere.
        seed: of every case.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Returns:
        The run; not finished where other processes still work on their share.
    """
    resolved = as_config(config)
    if accept_all:
        synthesis = resolved.synthesis.model_copy(update={"accept_all": True})
        resolved = resolved.model_copy(update={"synthesis": synthesis})
    job = Job(Path(data), Path(out), resolved, _path(lesions), seed=seed, device=device)
    return paint_cohort(job, Path(model), counts, method=method, shapes=shapes, num_workers=workers, is_dicom=dicom)


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
    dataset = chosen_cases(Path(model), open_dataset(data, lesions=lesions), is_unseen_only=_is_test(part))
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
    if _is_test(part):
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
        figure=_path(figure),
    )
    if out is not None:
        write_json(Path(out), measured.model_dump(mode="json"))
    return measured


def evaluate_reconstruction(
    data: Sequence[Folder],
    models: Sequence[Folder],
    *,
    part: str = "test",
    lesions: Sequence[Folder] = (),
    cache: Folder | None = None,
    tile_voxels: int = 96,
    device: str = "auto",
    config: Config | str = "default",
) -> list[ReconstructionRow]:
    """Measure what autoencoders keep of scans, a row for each dataset and model.

    Args:
        data: dataset folders.
        models: finished runs of stage 1.
        part: `test`: subjects no model was trained on, or `all`.
        lesions: a `lesions.toml` for each dataset, or none.
        cache: folder of prepared scans; by default `cache` beside the first model.
        tile_voxels: edge of what is decoded at once.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave; it splits a new dataset.
    """
    return measure_reconstruction(
        [Path(each) for each in data],
        [Path(each) for each in models],
        lesions=[Path(each) for each in lesions],
        split=as_config(config).data.split_options() if _is_test(part) else None,
        cache=_path(cache) or Path(models[0]).parent / "cache",
        tile_voxels=tile_voxels,
        device=device,
    )


def experiment(
    data: Folder,
    out: Folder,
    question: Question = QUESTION,
    *,
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
        question: what to compare.
        workers: pieces of work at a time.
        report_only: report on what is done so far.
        lesions: a `lesions.toml` elsewhere.
        seed: the first of the seeds.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Returns:
        What was measured; `failures` says why pieces failed, `unfinished` what is not done.
    """
    planned, asked = _asked(data, out, question, lesions, seed, device, config)
    return run.run_experiment(planned, asked, command=_typed(), num_workers=workers, is_report_only=report_only)[0]


def plan_experiment(
    data: Folder,
    out: Folder,
    question: Question = QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> list[PlannedCell]:
    """List an experiment's pieces of work, with what each needs and takes; the arguments are `experiment`'s."""
    return run.plan_experiment(*_asked(data, out, question, lesions, seed, device, config))


def do_cell(
    name: str,
    data: Folder,
    out: Folder,
    question: Question = QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> bool:
    """Do one of an experiment's pieces of work, and return whether it was left to do; the rest is `experiment`'s.

    Raises:
        ValueError: there is no such piece, or what it needs is not done.
    """
    return run.do_cell(name, *_asked(data, out, question, lesions, seed, device, config))


def submit_experiment(
    data: Folder,
    out: Folder,
    question: Question = QUESTION,
    *,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "demo",
) -> dict[str, str]:
    """Submit an experiment's pieces of work and its report to Slurm; the arguments are `experiment`'s.

    Returns:
        The jobs' ids by name, in the order they were submitted.

    Raises:
        ImportError: submitit is not there.
        RuntimeError: Slurm is not there, or refuses.
    """
    planned, asked = _asked(data, out, question, lesions, seed, device, config)
    return run.submit_experiment(planned, asked, command=_typed())


def _typed() -> str:
    return " ".join(["promptlesion", *sys.argv[1:]])


def _asked(
    data: Folder,
    out: Folder,
    question: Question,
    lesions: Folder | None,
    seed: int,
    device: str,
    config: Config | str,
) -> tuple[Experiment, Asked]:
    per_type = question.lesions_per_type
    planned = Experiment(Path(data), _path(lesions), Path(out), as_config(config), seed, device, per_type)
    return planned, ask(question, num_subjects=planned.num_subjects, first_seed=seed)


def _is_test(part: str) -> bool:
    if part not in ("all", "test"):
        raise ValueError(f"part: expected all or test; found {part!r}")
    return part == "test"


def _path(path: Folder | None) -> Path | None:
    return None if path is None else Path(path)
