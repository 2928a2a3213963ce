"""Training of stage 3, on real scans or on real and synthetic ones; validation selects the weights."""

import copy
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss, score_loss
from promptlesion.segmentation.mixing import check_subjects_apart, mixed_batches
from promptlesion.segmentation.network import BLOCKS, build_segmentation_network
from promptlesion.segmentation.validation import check_validation_lesions, mean_over_types, validation_dice
from promptlesion.training.device import place, resolve_device, send
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import Loss, Stage, build_state, only_loss, train
from promptlesion.training.run import Report, Run
from promptlesion.training.seeding import derive_seed
from promptlesion.training.state import TrainState

logger = logging.getLogger(__name__)
_METHODS = {"unet": "residual-unet", "dynunet": "dynunet"}
"""What the cards call the networks that are trained here."""
NOTHING_KEPT = {"best_dice": -1.0, "best_epoch": 0.0, "epochs_since_best": 0.0}
"""The counters of a run without a validation yet."""


def train_segmentation(
    *,
    real_cases: Sequence[CachedCase],
    synthetic_cases: Sequence[CachedCase],
    validation_cases: Sequence[CachedCase],
    test_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    labels: dict[str, int],
    config: SegmentationConfig,
    out: Path,
    seed: int,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> Run:
    """Train the U-Net or the DynUNet, or go on with an interrupted run.

    Args:
        real_cases: real training cases.
        synthetic_cases: synthetic training cases, mixed in as `synthetic_ratio` asks; may be empty.
        validation_cases: whole scans by whose lesion Dice the best weights are selected.
        test_cases: held out; never read, but a training case of one of their subjects is noticed.
        spec: window, spacing and lesion types of the dataset.
        labels: every label of the dataset by name, background included.
        config: network and training.
        out: the run's folder.
        seed: of the weights and of every draw.
        device: `auto` or a device's name.
        hardware: how the machine is used; it changes results by rounding at most.

    Returns:
        The finished run; its `checkpoint/` holds the best weights and the card.

    Raises:
        ValueError: a training case of a validation or test subject, or no lesion in any validation case.
    """
    check_subjects_apart(
        real_cases=real_cases,
        synthetic_cases=synthetic_cases,
        validation_cases=validation_cases,
        test_cases=test_cases,
    )
    check_validation_lesions(validation_cases, spec)
    torch_device, share = resolve_device(device), share_of_batch(config.batch_size)
    fingerprint = data_fingerprint([*real_cases, *synthetic_cases, *validation_cases])
    run = Run(
        out,
        stage="segmentation",
        config=config.model_dump(mode="json"),
        seed=seed,
        inputs={
            "training cases": _names(real_cases),
            "synthetic cases": _names(synthetic_cases),
            "validation cases": _names(validation_cases),
            "data": fingerprint,
            "labels": json.dumps(labels),
            "dataset": spec.model_dump_json(),
        },
        device=torch_device,
    )
    if run.is_finished:
        return run
    classes = LabelClasses.of_labels(labels)
    torch.manual_seed(derive_seed(seed, "segmentation", "weights"))
    network = place(
        build_segmentation_network(config, classes.num_classes, spacing_mm=spec.spacing_mm, window_hu=spec.window_hu),
        torch_device,
    )
    state = build_state(config, {"segmentation": network}, best=copy.deepcopy(network))
    state.counters |= NOTHING_KEPT
    steps_per_epoch = config.steps_per_epoch or math.ceil(len(real_cases) / config.batch_size)
    batches = mixed_batches(real_cases=real_cases, synthetic_cases=synthetic_cases, spec=spec, config=config, seed=seed)
    lesion_labels = [lesion.label for lesion in spec.lesions]
    loss_of = SegmentationLoss(classes, lesion_labels=lesion_labels, lesion_weight=config.lesion_weight)
    loss_of.to(torch_device)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        patches = batches.draw(step, share)
        return send(patches.image, torch_device), send(classes.to_classes(patches.labels), torch_device)

    def losses(batch: tuple[Tensor, Tensor], _: int) -> list[Loss]:
        return only_loss("segmentation", score_loss(network, loss_of, *batch, precision=config.precision))

    def validate() -> Report:
        """Return the Dice after an epoch that is to be validated."""
        epoch, step_in_epoch = divmod(state.step, steps_per_epoch)
        if step_in_epoch or (epoch % config.validate_every_epochs and epoch != config.num_epochs):
            return {}
        dice = validation_dice(
            network,
            validation_cases,
            spec=spec,
            config=config,
            label_values=classes.values,
            ignored=classes.ignored,
            device=torch_device,
        )
        mean_dice = keep_best(state, dice, epoch)
        return {"validation_dice": mean_dice, **{f"validation_dice_{name}": value for name, value in dice.items()}}

    def card() -> dict[str, object]:
        if state.counters["best_dice"] <= 0:
            logger.warning(
                "%s: no lesion of the validation cases was found in %d epochs of %d steps; train longer, "
                "with more segmentation.steps_per_epoch or segmentation.patience_epochs",
                out,
                state.step // steps_per_epoch,
                steps_per_epoch,
            )
        return {
            "stage": "segmentation",
            "method": _METHODS[config.network],
            **spec.facts(),
            "data_fingerprint": fingerprint,
            "config": config.model_dump(mode="json"),
            "dataset": spec.model_dump(mode="json"),
            "labels": labels,
            "training_cases": [case.name for case in real_cases],
            "synthetic_cases": [case.name for case in synthetic_cases],
            "training_subjects": sorted({case.subject for case in (*real_cases, *synthetic_cases)}),
            "validation_cases": [case.name for case in validation_cases],
            "seed": seed,
            "best_dice": state.counters["best_dice"],
            "best_epoch": int(state.counters["best_epoch"]),
            "num_epochs": state.step // steps_per_epoch,
        }

    stage = Stage(
        state=state,
        num_steps=config.num_epochs * steps_per_epoch,
        draw=draw,
        losses=losses,
        compiled=network,
        blocks=BLOCKS,
        checkpoint_every_steps=steps_per_epoch,
        card=card,
        parts={"segmentation": "best"},
        after_step=validate,
        has_ended=lambda: state.counters["epochs_since_best"] >= config.patience_epochs,
    )
    train(run, stage, config, device=torch_device, hardware=hardware)
    run.finish()
    return run


def keep_best(state: TrainState, dice: Mapping[str, float], epoch: int) -> float:
    """Take over the weights where their mean Dice is higher than ever; return that mean."""
    mean_dice = mean_over_types(dice)
    if mean_dice > state.counters["best_dice"]:
        state.counters |= {"best_dice": mean_dice, "best_epoch": epoch}
        state.networks["best"].load_state_dict(state.networks["segmentation"].state_dict())
    has_begun = state.counters["best_dice"] > 0  # before the first lesion is found, nothing stands still
    state.counters["epochs_since_best"] = epoch - state.counters["best_epoch"] if has_begun else 0
    return mean_dice


def _names(cases: Sequence[CachedCase]) -> str:
    return ", ".join(case.name for case in cases)
