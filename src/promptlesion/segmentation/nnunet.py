"""nnU-Net v2 itself as the network of stage 3: handed the mixed dataset, it plans, preprocesses and trains."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.mixing import SegmentationData, check_subjects_apart
from promptlesion.segmentation.nnunet_handover import DATASET, hand_over
from promptlesion.segmentation.nnunet_process import METHOD, find_nnunet, nnunet_process
from promptlesion.training.checkpoint import save_checkpoint
from promptlesion.training.launch import num_processes
from promptlesion.training.progress import progress_bar
from promptlesion.training.run import Run, RunOptions, read_metrics
from promptlesion.training.seeding import derive_seed

_HONOURED = {"network", "synthetic_ratio", "num_epochs", "steps_per_epoch", "patience_epochs", "nnunet_memory_gb"}
"""What nnU-Net is told; patch, batch, network, augmentation and learning rate it plans itself."""
_MOST_WORKERS = 8


def train_nnunet(
    prepared: PreparedDataset,
    data: SegmentationData,
    *,
    synthetic: Dataset | None,
    config: SegmentationConfig,
    options: RunOptions,
) -> Run:
    """Let nnU-Net train on the training subjects, or go on with an interrupted run.

    nnU-Net never gets a test case to see; what it plans it plans from training, synthetic and validation cases. While
    the run lasts nnU-Net's folders lie in `OUT/nnunet`; what it says is in `OUT/nnunet.log`.

    Args:
        prepared: the real scans and their split.
        data: the same, cached, with the synthetic scans.
        synthetic: scans that `synthesize` wrote, or none.
        config: length, patience and proportion; the rest nnU-Net plans.
        options: of the run.

    Raises:
        ValueError: a training case of a validation or test subject, two cases of one name, no lesion in any
            validation case, several processes, or no nnU-Net.
        RuntimeError: nnU-Net failed.
    """
    if num_processes() > 1:
        raise ValueError(f"segmentation.network=nnunetv2: expected one process; found {num_processes()} of torchrun")
    check_subjects_apart(data)
    if synthetic is None or config.synthetic_ratio == 0:
        synthetic, data = None, replace(data, synthetic=())
    run, out = data.open_run(options, config.model_dump(mode="json", include=_HONOURED)), options.out
    if not run.is_finished:
        python = find_nnunet(config.nnunet_environment)
        _plan(python, prepared, synthetic, config, out)
        classes = LabelClasses.of_labels(data.labels)
        model = _train(
            python,
            config,
            out,
            seed=derive_seed(options.seed, "segmentation"),
            lesion_classes={lesion.name: classes.values.index(lesion.label) for lesion in data.spec.lesions},
            device=run.device,
        )
        dice = [line["best_patch_dice"] for line in read_metrics(out)]
        card = {
            **run.facts(METHOD),
            **data.facts(),
            "config": config.model_dump(mode="json"),
            "best_patch_dice": dice[-1],
            "best_epoch": dice.index(dice[-1]) + 1,
            "num_epochs": len(dice),
            "nnunet": model,
        }
        weights = torch.load(_weights_path(out), map_location="cpu", weights_only=True)
        save_checkpoint(run.checkpoint_folder, card=card, parts={"segmentation": weights})
        run.finish()
    shutil.rmtree(out / "nnunet", ignore_errors=True)
    return run


def _plan(
    python: Path, prepared: PreparedDataset, synthetic: Dataset | None, config: SegmentationConfig, out: Path
) -> None:
    """Hand the data over and let nnU-Net plan and preprocess, unless that has been done."""
    folder = out / "nnunet"
    is_done = folder / "planned"
    if is_done.is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    hand_over(prepared, synthetic, config.synthetic_ratio, folder)
    workers = min(_MOST_WORKERS, torch.get_num_threads())
    task = {"task": "prepare", "num_workers": workers, "memory_gb": config.nnunet_memory_gb}
    with nnunet_process(python, task, folder=folder, log=out / "nnunet.log") as process:
        list(process.answers())
    is_done.touch()


def _train(
    python: Path,
    config: SegmentationConfig,
    out: Path,
    *,
    seed: int,
    lesion_classes: dict[str, int],
    device: torch.device,
) -> dict[str, object]:
    """Let nnU-Net train or go on, and return what it takes to use the weights that it leaves."""
    folder = out / "nnunet"
    task = {
        "task": "train",
        "preprocessed": str((folder / "preprocessed" / DATASET).resolve()),
        "device": device.type,
        "seed": seed,
        "num_epochs": config.num_epochs,
        "steps_per_epoch": config.steps_per_epoch,
        "patience_epochs": config.patience_epochs,
        "lesion_classes": lesion_classes,
        "metrics": str((out / "metrics.jsonl").resolve()),
        "weights": str(_weights_path(out).resolve()),
    }
    model: dict[str, object] = {}
    with (
        nnunet_process(python, task, folder=folder, log=out / "nnunet.log") as process,
        progress_bar("segmentation", config.num_epochs, done=len(read_metrics(out))) as bar,
    ):
        for answer in process.answers():
            if "epoch" in answer:
                bar.update(answer["epoch"], {name: answer[name] for name in ("loss", "best_patch_dice")})
            else:
                model = answer["model"]
    return model


def _weights_path(out: Path) -> Path:
    return out / "nnunet" / "weights.pt"
