"""Verbs of the command line as functions: a folder goes in, a folder comes out, and what was found is returned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from promptlesion.check import dataset_check
from promptlesion.check.dataset_check import DatasetCheck
from promptlesion.check.report import write_check
from promptlesion.config import Config
from promptlesion.data import dataset as dataset_folder
from promptlesion.data.dataset import Dataset
from promptlesion.data.splits import dataset_split
from promptlesion.evaluation.fidelity import Fidelity, evaluate_folders
from promptlesion.evaluation.prediction_folders import ComparedPredictions, compare_predictions
from promptlesion.front.settings import Folder, as_config, as_path, is_test
from promptlesion.segmentation.predict import chosen_cases, segment_dataset
from promptlesion.training.atomic import write_json
from promptlesion.training.progress import progress_bar, progress_reports


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
    part: str = "test",
    lesions: Folder | None = None,
    seed: int = 0,
    device: str = "auto",
    config: Config | str = "default",
) -> Fidelity:
    """Compare painted lesions with real ones: FID, KID, how HU, texture and size are spread, how they look, copies.

    Args:
        real: dataset folder with real lesions.
        synthetic: dataset folder that `synthesize` wrote.
        out: JSON file for every figure.
        figure: PNG of the distributions; beside it, as `NAME-profiles.png`, one of HU across the edge.
        training: dataset folder the generator was trained on, all of it; by default the training part of `real`.
        part: whose real lesions are compared with: `test`, `val`, `train` or `all`; all, with a warning, where there
            is no such part.
        lesions: a `lesions.toml` elsewhere.
        seed: of the intervals.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        config: a preset's name, or what `resolve_config` gave.

    Raises:
        ValueError: no painted lesion of a type that the real scans have, or an unknown part.
    """
    resolved = as_config(config)
    measured = evaluate_folders(
        open_dataset(real, lesions=lesions),
        open_dataset(synthetic),
        training=None if training is None else open_dataset(training, lesions=lesions),
        part=part,
        split=resolved.data.split_options(),
        config=resolved.evaluation,
        seed=seed,
        device=device,
        figure=as_path(figure),
    )
    if out is not None:
        write_json(Path(out), measured.model_dump(mode="json"))
    return measured
