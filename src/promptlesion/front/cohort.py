"""A cohort painted: a dataset folder and a model go in, a dataset folder comes out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from promptlesion.config import Config
from promptlesion.data.dataset import open_dataset
from promptlesion.data.dicom_export.writer import check_dicom_extra
from promptlesion.evaluation.contact_sheet import contact_sheet
from promptlesion.front.settings import Folder, as_config, as_path
from promptlesion.masks.shape_bank import parse_shapes
from promptlesion.methods import load_method
from promptlesion.synthesis.asking import asking
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.plan import source_scans
from promptlesion.synthesis.shard import own_shard
from promptlesion.training.cluster import ClusterJob, submit_array
from promptlesion.training.device import process_device
from promptlesion.training.run import Run

CONTACT_SHEET = "contact_sheet.png"
"""Picture in the cohort's folder: some of the painted lesions, to be looked at."""


def synthesize(
    data: Folder,
    model: Folder,
    out: Folder,
    counts: Mapping[str, int],
    *,
    method: str | None = None,
    shapes: Sequence[str] = (),
    attributes: Mapping[str, Mapping[str, object]] | None = None,
    workers: int | None = None,
    accept_all: bool = False,
    dicom: bool = False,
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "default",
) -> Run:
    """Paint lesions into the scans of the training subjects and write them as a dataset folder.

    Under torchrun, in a Slurm array or under srun it is this process's share of the cases.

    Args:
        data: dataset folder.
        model: finished run of a method that paints.
        out: the dataset folder to write; a cohort that was stopped goes on.
        counts: lesions to paint, by type.
        method: refuse a run of another one.
        shapes: masks to draw a type's shapes from, `TYPE=PATH` or `TYPE=PATH:LABEL`.
        attributes: what the lesions shall be like, by type and attribute of `ATTRIBUTES`: a number, or lowest and
            highest, as `{"calcified_plaque": {"mean_hu": (400, 900)}}`; the rest is as training lesions have it.
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
    resolved, sources, shard = as_config(config), parse_shapes(shapes), own_shard()
    synthesis = resolved.synthesis.model_copy(update={"accept_all": True}) if accept_all else resolved.synthesis
    if dicom:
        check_dicom_extra()
    load = partial(load_method, Path(model), synthesis, asked=method, hardware=resolved.hardware)
    synthesizer = load(process_device(device))
    dataset, folder = asking(open_dataset(Path(data), as_path(lesions)), attributes or {}, synthesizer.card), Path(out)
    return synthesize_cohort(
        source_scans(dataset, synthesizer, **resolved.data.split_options()),
        synthesizer,
        counts=counts,
        config=synthesis,
        out=folder,
        seed=seed,
        shapes=sources,
        is_dicom=dicom,
        shard=shard,
        load=load,
        num_workers=workers,
        on_complete=lambda: contact_sheet(dataset, open_dataset(folder), folder / CONTACT_SHEET),
    )


def submit_synthesis(work: Callable[[], Run], out: Folder, config: Config | str = "default") -> str:
    """Submit a cohort to Slurm: as many jobs as `config.cluster` says share its cases.

    Args:
        work: `synthesize` with its arguments, by functools.partial; it must survive pickling.
        out: the cohort's folder; what the jobs say lies beside it, in `OUT-jobs`.
        config: a preset's name, or what `resolve_config` gave.

    Returns:
        The id of the jobs' array.

    Raises:
        ImportError: submitit is not there.
        RuntimeError: Slurm is not there, or refuses.
    """
    folder = Path(out)
    jobs = folder.with_name(f"{folder.name}-jobs")
    return submit_array(ClusterJob(f"synthesize {folder.name}", work), jobs, as_config(config).cluster)
