"""Training steps to count and time, and whether one fits into memory or has to compute its activations again."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.config import Config
from promptlesion.cost.machine import Machine, this_machine
from promptlesion.cost.measure import PassOf, count_pass
from promptlesion.cost.parameters import autoencoder_networks, num_parameters
from promptlesion.cost.passes import autoencoder_step, segmentation_step
from promptlesion.data.dataset import Dataset
from promptlesion.methods import method_named
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.hardware import Choice
from promptlesion.training.launch import num_processes
from promptlesion.training.optimisation import OptimisationConfig
from promptlesion.training.run import is_finished_run

logger = logging.getLogger(__name__)
_MOMENTS_BYTES = 8
"""That Adam keeps for each parameter."""


def is_checkpointed(choice: Choice, held_bytes: int, machine: Machine) -> bool:
    """Whether a training that would hold so much computes activations again; on a CPU the process holds more."""
    held = held_bytes + (machine.resident_bytes if machine.device.type == "cpu" else 0)
    return choice == "on" or (choice == "auto" and held > machine.device_bytes)


def fitted_config(config: Config, training: str, dataset: Dataset, *, out: Path, device: str) -> Config:
    """Return the configuration with activation checkpointing on or off where it is `auto` and there is work left.

    `training` is `autoencoder`, `segmentation`, or the name of a method, which may have nothing to train; `device` is
    `auto` or a device's name.
    """
    hardware = config.hardware
    section = training if training in ("autoencoder", "segmentation") else method_named(training).section
    settings = getattr(config, section)
    is_decided = hardware.activation_checkpointing != "auto" or is_finished_run(out)
    if is_decided or not isinstance(settings, OptimisationConfig):
        return config
    machine = this_machine(device, Path())
    part = settings.model_copy(update={"batch_size": max(1, settings.batch_size // num_processes())})
    step = training_step(
        config.model_copy(update={section: part}),
        training,
        num_types=len(dataset.spec.lesions),
        num_labels=len(dataset.labels),
        spacing_mm=dataset.spec.spacing_mm,
        device=machine.device,
    )
    held = step.held_bytes(count_pass(step.pass_of, step.patch_voxels, machine.device).peak_bytes)
    is_on = is_checkpointed("auto", held, machine)
    if is_on:
        logger.warning(
            "%s: a step would hold %.1f GiB; activations are computed again to fit into the %.1f GiB there are",
            training,
            held / 2**30,
            machine.device_bytes / 2**30,
        )
    chosen = hardware.model_copy(update={"activation_checkpointing": "on" if is_on else "off"})
    return config.model_copy(update={"hardware": chosen})


@dataclass(frozen=True)
class TrainingStep:
    """A step of a training, to be counted and timed."""

    pass_of: PassOf
    patch_voxels: int
    num_parameters: int
    """That it trains."""

    def held_bytes(self, peak_bytes: int) -> int:
        """Return what the training holds where a step without Adam's moments holds so much."""
        return peak_bytes + _MOMENTS_BYTES * self.num_parameters


def training_step(
    config: Config,
    training: str,
    *,
    num_types: int,
    num_labels: int,
    spacing_mm: tuple[float, float, float],
    device: torch.device,
    is_adversarial: bool | None = None,
) -> TrainingStep:
    """Return a step of the autoencoder, of the segmentation, or of a method that trains a network.

    `num_labels` counts the background; nnU-Net's architecture depends on `spacing_mm`. The autoencoder's
    discriminators take part where `is_adversarial`, by default where they ever do.
    """
    if training == "autoencoder":
        first, perceptual = config.autoencoder, build_perceptual_loss(config.autoencoder, device)
        is_ever = first.adversarial_weight > 0 and first.adversarial_start_epoch < first.num_epochs
        with_them = is_ever if is_adversarial is None else is_adversarial
        return TrainingStep(
            partial(autoencoder_step, first, perceptual, is_adversarial=with_them),
            first.patch_voxels,
            num_parameters(lambda: autoencoder_networks(first)),
        )
    if training == "segmentation":
        third = config.segmentation
        return TrainingStep(
            partial(segmentation_step, third, num_labels=num_labels, spacing_mm=spacing_mm),
            third.patch_voxels,
            num_parameters(lambda: {training: build_segmentation_network(third, num_types + 1, spacing_mm=spacing_mm)}),
        )
    method = method_named(training)
    patch_voxels = method.patch_voxels(config)
    assert patch_voxels is not None
    return TrainingStep(
        method.pass_of(config, num_types=num_types),
        patch_voxels,
        num_parameters(lambda: method.build_networks(config, num_types=num_types)),
    )
