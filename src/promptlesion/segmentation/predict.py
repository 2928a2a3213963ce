"""Label maps for the scans of a dataset folder, one file a case, resumable."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from promptlesion.data.case_check import check_hounsfield, check_spacing
from promptlesion.data.content import content_of
from promptlesion.data.dataset import Case, Dataset
from promptlesion.data.dataset_json import IGNORE_LABEL
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume, read_volume, write_volume
from promptlesion.segmentation.inference import load_segmentation, predict_case
from promptlesion.segmentation.nnunet_predict import nnunet_predictor
from promptlesion.segmentation.nnunet_process import METHOD
from promptlesion.training.atomic import read_json, write_json
from promptlesion.training.checkpoint import Checkpoint, differences, load_checkpoint, read_card
from promptlesion.training.device import resolve_device

logger = logging.getLogger(__name__)

RECORD_FILE = "segmentation.json"
"""Beside the predictions: which model made them, from which scans."""


def prediction_path(folder: Path, case_name: str) -> Path:
    """Where the predicted label map of a case lies."""
    return folder / f"{case_name}.nii.gz"


def segment_dataset(
    run_folder: Path,
    dataset: Dataset,
    out_folder: Path,
    *,
    device: str = "auto",
    is_mirrored: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write `CASE.nii.gz` for every case: the dataset's label values, on the grid of the scan.

    Label maps that the same model has made from the same scan in the same way are kept; others of ours go. The
    label maps of the dataset are not read.

    Args:
        dataset: the scans; its labels must be those the network was trained on.
        is_mirrored: take the mean over the mirror images of every window; eight times the work.

    Raises:
        ValueError: other labels, window or spacing than the network's, or label maps in the folder that are not
            ours to replace.
    """
    torch_device = resolve_device(device)
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage="segmentation")
    trained_on, spec = checkpoint.card["labels"], DatasetSpec.model_validate(checkpoint.card["dataset"])
    assert isinstance(trained_on, dict)
    others = differences(_facts(dataset.labels, dataset.spec), _facts(trained_on, spec))
    if others:
        raise ValueError(
            f"{dataset.root}: expected a dataset like the one the network was trained on; found one with other "
            + "; ".join(others)
        )
    maker: dict[str, object] = {"weights_sha256": checkpoint.card["weights_sha256"], "is_mirrored": is_mirrored}
    scans = _take_up(out_folder, maker, dataset.cases)
    with _predictor(run_folder, checkpoint, torch_device, is_mirrored=is_mirrored) as predict:
        for done, case in enumerate(dataset.cases, start=1):
            path, known = prediction_path(out_folder, case.name), scans.get(case.name, {})
            scan = content_of([case.image_path], known)
            if known.get("files") != scan["files"] or not path.is_file():
                image = read_volume(case.image_path)
                check_spacing(case.name, image)
                check_hounsfield(case.name, image.array)
                write_volume(predict(case.image_path, image), path)
                scans[case.name] = scan
                _write_record(out_folder, maker, scans)
            if on_progress is not None:
                on_progress(done, len(dataset.cases))


def chosen_cases(run_folder: Path, dataset: Dataset, *, is_unseen_only: bool) -> Dataset:
    """Return the cases to segment: those of unseen subjects alone, or all, with a warning if some were seen.

    Raises:
        ValueError: all subjects were seen, and none of them is wanted.
    """
    card = read_card(run_folder / "checkpoint", stage="segmentation")
    trained_on, selected_by = card["training_subjects"], card["validation_cases"]
    assert isinstance(trained_on, list) and isinstance(selected_by, list)
    subjects = set(trained_on) | {case.subject for case in dataset.cases if case.name in selected_by}
    unseen = [case.name for case in dataset.cases if case.subject not in subjects]
    if is_unseen_only:
        if not unseen:
            raise ValueError(
                f"{dataset.root}: expected subjects that {run_folder} was not trained or selected on; found none"
            )
        return dataset.select(unseen)
    if len(unseen) < len(dataset.cases):
        logger.warning(
            "%s: the network was trained or selected on the subjects of %d of the %d cases; measured on them it looks "
            "better than it is. --part test leaves them out",
            dataset.root,
            len(dataset.cases) - len(unseen),
            len(dataset.cases),
        )
    return dataset


@contextmanager
def _predictor(
    run_folder: Path, checkpoint: Checkpoint, device: torch.device, *, is_mirrored: bool
) -> Iterator[Callable[[Path, Volume], Volume]]:
    """Give a function from a scan, its file and its volume, to its label map, whichever network the run trained."""
    if checkpoint.card["method"] == METHOD:
        with nnunet_predictor(checkpoint, device=device, is_mirrored=is_mirrored) as predict:
            yield predict
    else:
        model = load_segmentation(run_folder, device)
        yield lambda _, scan: predict_case(model, scan, device, is_mirrored=is_mirrored)


def _facts(labels: Mapping[str, int], spec: DatasetSpec) -> dict[str, object]:
    """Return what the network is bound to; which of the labels are lesions does not matter to it."""
    by_value = sorted((value, name) for name, value in labels.items() if name != IGNORE_LABEL)
    named = ", ".join(f"{name}={value}" for value, name in by_value)
    facts = spec.facts()
    return {"labels": named, "window_hu": facts["window_hu"], "spacing_mm": facts["spacing_mm"]}


def _take_up(out_folder: Path, maker: Mapping[str, object], cases: Sequence[Case]) -> dict[str, dict[str, str]]:
    """Return the scans that this maker has done in the folder; remove what another one did."""
    record_path = out_folder / RECORD_FILE
    if not record_path.is_file():
        foreign = [path for case in cases if (path := prediction_path(out_folder, case.name)).exists()]
        if foreign:
            raise ValueError(
                f"{foreign[0]}: expected a folder without label maps of other origin; "
                f"found one and no {RECORD_FILE} that says what made it. Choose another --out"
            )
        _write_record(out_folder, maker, {})
        return {}
    record = read_json(record_path)
    if {"is_mirrored": False, **record} == {**maker, "scans": record["scans"]}:
        return {name: scan for name, scan in record["scans"].items() if isinstance(scan, dict)}
    for name in record["scans"]:
        prediction_path(out_folder, name).unlink(missing_ok=True)
    _write_record(out_folder, maker, {})
    return {}


def _write_record(out_folder: Path, maker: Mapping[str, object], scans: dict[str, dict[str, str]]) -> None:
    write_json(out_folder / RECORD_FILE, {**maker, "scans": scans})
