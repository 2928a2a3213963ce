"""The stages as commands do them: from a dataset folder to a finished run or cohort, on one process or several."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.config import Config
from promptlesion.cost.fitting import fitted_config
from promptlesion.data.dataset import open_dataset
from promptlesion.data.dicom_export.writer import check_dicom_extra
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.evaluation.contact_sheet import contact_sheet
from promptlesion.masks.shape_bank import parse_shapes
from promptlesion.methods import check_asked, load_method, train_method
from promptlesion.segmentation.stage import train_stage
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.plan import source_scans
from promptlesion.synthesis.share import own_share
from promptlesion.synthesis.workers import process_device
from promptlesion.training.launch import is_main_process, processes
from promptlesion.training.run import Run

CONTACT_SHEET = "contact_sheet.png"


@dataclass(frozen=True)
class Job:
    """What every stage is told."""

    data: Path
    """Dataset folder."""
    out: Path
    config: Config
    lesions: Path | None = None
    """A `lesions.toml` elsewhere."""
    cache: Path | None = None
    """Folder of prepared scans; by default beside `out`."""
    seed: int = 0
    device: str = "auto"

    @property
    def cache_folder(self) -> Path:
        """Where prepared scans are."""
        return self.cache or self.out.parent / "cache"

    @contextmanager
    def begun(self, stage: str) -> Iterator[tuple[PreparedDataset, Config, str]]:
        """Join the processes torchrun started, if it did; give the dataset, the fitted configuration and the device.

        Only the main process speaks.
        """
        split = self.config.data.split_options()
        with processes(self.device) as device:
            if not is_main_process():
                logging.disable(logging.WARNING)
            prepared = prepare_dataset(self.data, cache=self.cache_folder, lesions=self.lesions, **split)
            yield prepared, fitted_config(self.config, stage, prepared.dataset, out=self.out, device=device), device


def train_first(job: Job) -> Run:
    """Train the autoencoder, or go on with an interrupted run."""
    with job.begun("autoencoder") as (prepared, config, device):
        return train_autoencoder(
            train_cases=prepared.train,
            validation_cases=prepared.validation,
            spec=prepared.dataset.spec,
            config=config.autoencoder,
            out=job.out,
            seed=job.seed,
            device=device,
            hardware=config.hardware,
        )


def train_second(job: Job, method: str, *, autoencoder: Path | None, types: Sequence[str] = ()) -> Run:
    """Train a method, or go on with an interrupted run; see `train_method`."""
    check_asked(method, autoencoder, types)
    with job.begun(method) as (prepared, config, device):
        return train_method(
            method,
            prepared,
            autoencoder_run=autoencoder,
            config=config,
            out=job.out,
            seed=job.seed,
            device=device,
            types=types,
        )


def train_third(job: Job, *, synthetic: Path | None) -> Run:
    """Train the segmentation network, or go on with an interrupted run."""
    with job.begun("segmentation") as (prepared, config, device):
        return train_stage(
            prepared,
            synthetic=open_dataset(synthetic) if synthetic else None,
            cache=job.cache_folder,
            config=config.segmentation,
            out=job.out,
            seed=job.seed,
            device=device,
            hardware=config.hardware,
        )


def synthesize(
    job: Job,
    model: Path,
    counts: Mapping[str, int],
    *,
    method: str | None = None,
    shapes: Sequence[str] = (),
    num_workers: int | None = None,
    is_dicom: bool = False,
) -> Run:
    """Paint a cohort into the scans of the training subjects, or this process's share of it.

    Args:
        job: dataset, folder and configuration.
        model: finished run of a method.
        counts: lesions to paint, by type.
        method: it should be a run of; by default any.
        shapes: masks to draw shapes from; see `parse_shapes`.
        num_workers: processes on this machine; by default one a core, or one on a GPU.
        is_dicom: whether every case becomes a DICOM series too.
    """
    sources, share = parse_shapes(shapes), own_share()
    if is_dicom:
        check_dicom_extra()
    config = job.config
    load = partial(load_method, model, config.synthesis, asked=method, hardware=config.hardware)
    synthesizer = load(process_device(job.device))
    dataset = open_dataset(job.data, job.lesions)
    return synthesize_cohort(
        source_scans(dataset, synthesizer, **config.data.split_options()),
        synthesizer,
        counts=counts,
        config=config.synthesis,
        out=job.out,
        seed=job.seed,
        shapes=sources,
        is_dicom=is_dicom,
        share=share,
        load=load,
        num_workers=num_workers,
        on_complete=lambda: contact_sheet(dataset, open_dataset(job.out), job.out / CONTACT_SHEET),
    )
