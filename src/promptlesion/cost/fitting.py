"""Whether a training fits into memory as it is, or has to compute its activations again; counted before it starts."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.config import Config
from promptlesion.cost.machine import Machine, this_machine
from promptlesion.cost.measure import PassOf, count_pass
from promptlesion.cost.parameters import autoencoder_networks
from promptlesion.cost.passes import autoencoder_step, segmentation_step
from promptlesion.data.dataset import Dataset
from promptlesion.methods import method_named
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.hardware import Choice
from promptlesion.training.launch import num_processes
from promptlesion.training.run import is_finished_run

logger = logging.getLogger(__name__)
MOMENTS_BYTES = 8
"""That Adam keeps for each parameter."""


def is_checkpointed(choice: Choice, held_bytes: int, machine: Machine) -> bool:
    """Whether a training that would hold so much computes activations again; on a CPU the process holds more."""
    held = held_bytes + (machine.resident_bytes if machine.device.type == "cpu" else 0)
    return choice == "on" or (choice == "auto" and held > machine.device_bytes)


def fitted_config(config: Config, training: str, dataset: Dataset, *, out: Path, device: str) -> Config:
    """Return the configuration with activation checkpointing on or off where it is `auto` and there is work left.

    Args:
        config: of all stages.
        training: `autoencoder`, `segmentation`, or the name of a method, which may have nothing to train.
        dataset: to train on.
        out: the folder of the run.
        device: `auto` or the name of the device that is to train.
    """
    hardware = config.hardware
    if hardware.activation_checkpointing != "auto" or is_finished_run(out):
        return config
    machine = this_machine(device, Path())
    step = _training_step(config, training, dataset, machine.device)
    if step is None:
        return config
    with torch.device("meta"):
        networks = step.networks()
    num_parameters = sum(weight.numel() for network in networks.values() for weight in network.parameters())
    held = count_pass(step.pass_of, step.patch_voxels, machine.device).peak_bytes + MOMENTS_BYTES * num_parameters
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
class _Step:
    pass_of: PassOf
    patch_voxels: int
    networks: Callable[[], Mapping[str, nn.Module]]
    """Builds those it trains."""


def _training_step(config: Config, training: str, dataset: Dataset, device: torch.device) -> _Step | None:
    spec, num_types = dataset.spec, len(dataset.spec.lesions)
    if training == "autoencoder":
        first = _shared(config, training).autoencoder
        perceptual = build_perceptual_loss(first, device)
        is_adversarial = first.adversarial_weight > 0 and first.adversarial_start_epoch < first.num_epochs
        return _Step(
            lambda edge, bench: autoencoder_step(
                first, perceptual, patch_voxels=edge, is_adversarial=is_adversarial, bench=bench
            ),
            first.patch_voxels,
            lambda: autoencoder_networks(first),
        )
    if training == "segmentation":
        third = _shared(config, training).segmentation
        return _Step(
            lambda edge, bench: segmentation_step(
                third, patch_voxels=edge, num_labels=len(dataset.labels), bench=bench, spacing_mm=spec.spacing_mm
            ),
            third.patch_voxels,
            lambda: {"segmentation": build_segmentation_network(third, num_types + 1, spacing_mm=spec.spacing_mm)},
        )
    method = method_named(training)
    patch_voxels = method.patch_voxels(config)
    if method.training_pass is None or patch_voxels is None:
        return None
    return _Step(
        method.pass_of(_shared(config, method.section), num_types=num_types),
        patch_voxels,
        lambda: method.build_networks(config, num_types=num_types),
    )


def _shared(config: Config, section: str) -> Config:
    """Return the configuration with the part of a section's batch that each of several processes takes."""
    settings = getattr(config, section)
    batch_size = max(1, settings.batch_size // num_processes())
    return config.model_copy(update={section: settings.model_copy(update={"batch_size": batch_size})})
