"""Verbs of the command line as functions: a folder goes in, a folder comes out, and what was found is returned."""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from promptlesion.baselines.methods import load_method
from promptlesion.check import dataset_check
from promptlesion.check.dataset_check import DatasetCheck
from promptlesion.check.report import write_check
from promptlesion.config import Config
from promptlesion.data import dataset as dataset_folder
from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.contact_sheet import contact_sheet
from promptlesion.experiment.asked import ask
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.run import run_experiment
from promptlesion.experiment.work import Experiment
from promptlesion.front.settings import as_config
from promptlesion.segmentation.predict import seen_cases, segment_dataset
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.dicom_export import check_dicom_extra
from promptlesion.synthesis.plan import source_scans
from promptlesion.synthesis.shape_bank import parse_shapes
from promptlesion.synthesis.share import own_share
from promptlesion.synthesis.workers import process_device
from promptlesion.training.progress import progress_bar, progress_reports
from promptlesion.training.run import Run

logger = logging.getLogger(__name__)
ALL_METHODS = "real,copy-paste,intensity,difftumor,med-ddpm,promptlesion-onehot,promptlesion-transformer"


def open_dataset(data: str | Path, *, lesions: str | Path | None = None) -> Dataset:
    """Open a dataset folder; no scan is read.

    Args:
        data: the folder, nnU-Net v2 raw with a `lesions.toml`.
        lesions: a `lesions.toml` elsewhere.

    Raises:
        DatasetError: what does not fit together.
    """
    return dataset_folder.open_dataset(Path(data), None if lesions is None else Path(lesions))


def check_dataset(
    dataset: str | Path,
    *,
    out: str | Path | None = None,
    lesions: str | Path | None = None,
    config: Config | str = "default",
    device: str = "auto",
    workers: int = 1,
) -> DatasetCheck:
    """Say what is wrong with a dataset and what training on it will cost, and write check.html and check.json.

    Args:
        dataset: the folder; its `lesions.toml` may be missing: one to start from is written.
        out: folder of the report, by default `check` in the dataset's.
        lesions: a `lesions.toml` elsewhere.
        config: a preset's name, or what `resolve_config` gave.
        device: that training will use.
        workers: processes that read cases.
    """
    with progress_reports("checking") as on_progress:
        checked = dataset_check.check_dataset(
            Path(dataset),
            out=None if out is None else Path(out),
            lesions=None if lesions is None else Path(lesions),
            config=as_config(config),
            device=device,
            num_workers=workers,
            on_progress=on_progress,
        )
    write_check(checked)
    return checked


def synthesize(
    data: str | Path,
    model: str | Path,
    out: str | Path,
    counts: Mapping[str, int],
    *,
    method: str | None = None,
    shapes: Sequence[str] = (),
    workers: int | None = None,
    accept_all: bool = False,
    dicom: bool = False,
    lesions: str | Path | None = None,
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
    resolved, folder = as_config(config), Path(out)
    is_all = accept_all or resolved.synthesis.accept_all
    settings = resolved.synthesis.model_copy(update={"accept_all": is_all})
    sources, share = parse_shapes(shapes), own_share()
    if dicom:
        check_dicom_extra()
    load = partial(load_method, Path(model), settings, asked=method, hardware=resolved.hardware)
    synthesizer = load(process_device(device))
    dataset = open_dataset(data, lesions=lesions)
    return synthesize_cohort(
        source_scans(dataset, synthesizer, **resolved.data.split_options()),
        synthesizer,
        counts=counts,
        config=settings,
        out=folder,
        seed=seed,
        shapes=sources,
        is_dicom=dicom,
        share=share,
        load=load,
        num_workers=workers,
        on_complete=lambda: contact_sheet(dataset, open_dataset(folder), folder / "contact_sheet.png"),
    )


def segment(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    part: str = "all",
    mirror: bool = False,
    lesions: str | Path | None = None,
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
    dataset = open_dataset(data, lesions=lesions)
    seen = seen_cases(Path(model), dataset)
    if part == "test":
        unseen = [case.name for case in dataset.cases if case.name not in seen]
        if not unseen:
            raise ValueError(f"{data}: expected subjects that {model} was not trained or selected on; found none")
        dataset = dataset.select(unseen)
    elif part != "all":
        raise ValueError(f"part: expected all or test; found {part!r}")
    elif seen:
        logger.warning(
            "%s: the network was trained or selected on the subjects of %d of the %d cases; measured on them it looks "
            "better than it is. --part test leaves them out",
            data,
            len(seen),
            len(dataset.cases),
        )
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


def experiment(
    data: str | Path,
    out: str | Path,
    *,
    methods: str = ALL_METHODS,
    seeds: int = 3,
    ratios: str = "1",
    real_fractions: str = "1",
    lesions_per_type: int | None = None,
    workers: int = 1,
    report_only: bool = False,
    lesions: str | Path | None = None,
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
    own_lesions = None if lesions is None else Path(lesions)
    planned = Experiment(Path(data), own_lesions, Path(out), as_config(config), seed, device, lesions_per_type)
    asked = ask(planned, methods=methods, num_seeds=seeds, ratios=ratios, real_fractions=real_fractions)
    command = " ".join(["promptlesion", *sys.argv[1:]])
    return run_experiment(planned, asked, command=command, num_workers=workers, is_report_only=report_only)[0]
