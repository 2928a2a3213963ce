"""Training of stage 3, on real scans or on real and synthetic ones; validation selects the weights."""

import copy
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from promptlesion.data.dataset import Dataset
from promptlesion.data.prepared import PreparedDataset, cached_cases
from promptlesion.data.trained_on import GENERATOR_FILE, check_unseen, generator_of
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss, score_loss
from promptlesion.segmentation.mixing import SegmentationData, mixed_batches
from promptlesion.segmentation.network import BLOCKS, build_segmentation_network
from promptlesion.segmentation.nnunet import train_nnunet
from promptlesion.segmentation.validation import mean_over_types, validation_dice
from promptlesion.training.device import place, send
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import Loss, Stage, build_state, only_loss, train
from promptlesion.training.run import Report, Run, RunOptions
from promptlesion.training.seeding import derive_seed
from promptlesion.training.state import TrainState

logger = logging.getLogger(__name__)
_METHODS = {"unet": "residual-unet", "dynunet": "dynunet"}
"""What the cards call the networks that are trained here."""
NOTHING_KEPT = {"best_dice": -1.0, "best_epoch": 0.0, "epochs_since_best": 0.0}
"""The counters of a run without a validation yet."""


def train_stage(
    prepared: PreparedDataset,
    *,
    synthetic: Dataset | None,
    cache: Path,
    config: SegmentationConfig,
    options: RunOptions,
) -> Run:
    """Train the network that `config.network` names on the training subjects, or go on with an interrupted run.

    Args:
        prepared: the real scans; the training part trains, the validation part selects the weights, and the test
            part is read by nobody: it is named only so that a synthetic scan of one of its subjects is noticed.
        synthetic: scans that `synthesize` wrote, mixed in as `synthetic_ratio` asks; none: real scans only.

    Raises:
        ValueError: a training case, real or synthetic, of a validation or test subject, or synthetic cases whose
            generator has learned from one; no lesion in any validation case; or settings that the network does not
            know.
    """
    if synthetic is not None:
        check_unseen(generator_of(synthetic), prepared.dataset, prepared.split, source=synthetic.root / GENERATOR_FILE)
    synthetic_cases = [] if synthetic is None else cached_cases(synthetic, cache)
    data = SegmentationData.of(prepared, synthetic_cases)
    if config.network == "nnunetv2":
        return train_nnunet(prepared, data, synthetic=synthetic, config=config, options=options)
    return train_segmentation(data, config=config, options=options)


def train_segmentation(data: SegmentationData, *, config: SegmentationConfig, options: RunOptions) -> Run:
    """Train the U-Net or the DynUNet, or go on with an interrupted run.

    The finished run's `checkpoint/` holds the best weights and the card.

    Raises:
        ValueError: a training case of a validation or test subject, or no lesion in any validation case.
    """
    share, spec = share_of_batch(config.batch_size), data.spec
    run = data.open_run(options, config.model_dump(mode="json"))
    if run.is_finished:
        return run
    device, classes = run.device, LabelClasses.of_labels(data.labels)
    torch.manual_seed(derive_seed(options.seed, "segmentation", "weights"))
    network = place(
        build_segmentation_network(config, classes.num_classes, spacing_mm=spec.spacing_mm, window_hu=spec.window_hu),
        device,
    )
    state = build_state(config, {"segmentation": network}, best=copy.deepcopy(network))
    state.counters |= NOTHING_KEPT
    steps_per_epoch = config.steps_per_epoch or math.ceil(len(data.real) / config.batch_size)
    batches = mixed_batches(data, config, seed=options.seed)
    lesion_labels = [lesion.label for lesion in spec.lesions]
    loss_of = SegmentationLoss(classes, lesion_labels=lesion_labels, lesion_weight=config.lesion_weight)
    loss_of.to(device)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        patches = batches.draw(step, share)
        return send(patches.image, device), send(classes.to_classes(patches.labels), device)

    def losses(batch: tuple[Tensor, Tensor], _: int) -> list[Loss]:
        return only_loss("segmentation", score_loss(network, loss_of, *batch, precision=config.precision))

    def validate() -> Report:
        """Return the Dice after an epoch that is to be validated."""
        epoch, step_in_epoch = divmod(state.step, steps_per_epoch)
        if step_in_epoch or (epoch % config.validate_every_epochs and epoch != config.num_epochs):
            return {}
        dice = validation_dice(network, data.validation, spec=spec, config=config, classes=classes, device=device)
        mean_dice = keep_best(state, dice, epoch)
        return {"validation_dice": mean_dice, **{f"validation_dice_{name}": value for name, value in dice.items()}}

    def card() -> dict[str, object]:
        if state.counters["best_dice"] <= 0:
            logger.warning(
                "%s: no lesion of the validation cases was found in %d epochs of %d steps; train longer, "
                "with more segmentation.steps_per_epoch or segmentation.patience_epochs",
                run.folder,
                state.step // steps_per_epoch,
                steps_per_epoch,
            )
        return {
            **run.facts(_METHODS[config.network]),
            **data.facts(),
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
    train(run, stage, config, hardware=options.hardware)
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
