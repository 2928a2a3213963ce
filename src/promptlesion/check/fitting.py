"""Whether a training fits into memory as it is, or has to compute its activations again; counted before it starts."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.check.cost import PassOf, count_pass
from promptlesion.check.machine import Machine, this_machine
from promptlesion.check.workload import autoencoder_step, diffusion_step, segmentation_step, voxel_step
from promptlesion.config import Config
from promptlesion.data.dataset import Dataset
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.parameters import count_parameters
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.hardware import Choice
from promptlesion.training.launch import num_processes
from promptlesion.training.run import is_finished_run

logger = logging.getLogger(__name__)
Settings = TypeVar("Settings", AutoencoderConfig, DiffusionConfig, MedDDPMConfig, SegmentationConfig)
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
    num_types, spacing_mm = len(dataset.spec.lesions), dataset.spec.spacing_mm
    step = _training_step(config, training, dataset, machine.device)
    if step is None:
        return config
    networks = count_parameters(config, num_types=num_types, spacing_mm=spacing_mm)
    num_parameters = sum(network.total for network in networks if network.name.startswith(step.networks))
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
    networks: tuple[str, ...]
    """How the names of those it trains begin; see `count_parameters`."""


def _training_step(config: Config, training: str, dataset: Dataset, device: torch.device) -> _Step | None:
    spec, num_types = dataset.spec, len(dataset.spec.lesions)
    if training == "autoencoder":
        first = _share(config.autoencoder)
        perceptual = build_perceptual_loss(first, device)
        is_adversarial = first.adversarial_weight > 0 and first.adversarial_start_epoch < first.num_epochs
        return _Step(
            lambda edge, bench: autoencoder_step(
                first, perceptual, patch_voxels=edge, is_adversarial=is_adversarial, bench=bench
            ),
            first.patch_voxels,
            ("autoencoder", "discriminators"),
        )
    if training == "segmentation":
        third = _share(config.segmentation)
        return _Step(
            lambda edge, bench: segmentation_step(
                third, patch_voxels=edge, num_labels=len(dataset.labels), bench=bench, spacing_mm=spec.spacing_mm
            ),
            third.patch_voxels,
            ("segmentation",),
        )
    if training == "med-ddpm":
        voxels = _share(config.med_ddpm)
        return _Step(
            lambda edge, bench: voxel_step(voxels, patch_voxels=edge, num_types=num_types, bench=bench),
            voxels.patch_voxels,
            ("Med-DDPM",),
        )
    is_difftumor = training == "difftumor"
    if not is_difftumor and not training.startswith("promptlesion"):
        return None
    second = _share(config.difftumor.as_diffusion() if is_difftumor else config.diffusion)
    latent = config.model_copy(update={"diffusion": second})
    return _Step(
        lambda edge, bench: diffusion_step(latent, patch_voxels=edge, num_types=num_types, bench=bench),
        second.patch_voxels,
        ("DiffTumor",) if is_difftumor else ("diffusion", "prompt encoder"),
    )


def _share(settings: Settings) -> Settings:
    """Return the settings with the part of the batch that each of several processes takes."""
    return settings.model_copy(update={"batch_size": max(1, settings.batch_size // num_processes())})
