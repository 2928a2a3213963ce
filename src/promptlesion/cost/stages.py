"""The stages one by one: what each does with a configuration on a dataset, counted and measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.config import Config
from promptlesion.cost.estimate import Extent, StageEstimate
from promptlesion.cost.fitting import TrainingStep, is_checkpointed, training_step
from promptlesion.cost.machine import Machine, compressing_seconds_a_voxel, drawing_seconds, warping_seconds
from promptlesion.cost.measure import Count, PassCost, PassOf, cost_of, count_pass, updating_seconds_a_parameter
from promptlesion.cost.parameters import num_parameters
from promptlesion.cost.passes import decoding, denoising, encoding, segmenting
from promptlesion.methods import PROMPTLESION
from promptlesion.segmentation.augmentation import build_augmentation
from promptlesion.synthesis.batch_size import lesions_at_once, open_scans_bytes

NUM_STAGES = 5
_STATE_BYTES = 16
"""That a saved training state has for each parameter: the weights, their average or best, and Adam's moments."""
_WEIGHT_BYTES = 4
_ENCODE_BATCH = 4
_WINDOWS_AT_ONCE = 4
_SMALLEST_PATCH = 32
_SMALLEST_LATENT = 12
"""Edges that are timed first: with less, the networks' innermost resolution is computed otherwise."""


@dataclass(frozen=True)
class _Training:
    """A training step and what it costs."""

    step: TrainingStep
    cost: PassCost

    @property
    def held_bytes(self) -> int:
        return self.step.held_bytes(self.cost.peak_bytes)

    def said(self, what: str) -> str:
        """Return how much work it is, in words."""
        return f"{what}, activations computed again" if self.cost.is_checkpointed else what


@dataclass(frozen=True)
class _Estimator:
    """The stages, which share what they are estimated from. Memory is what a stage holds beside the process."""

    config: Config
    extent: Extent
    machine: Machine
    updating_seconds_a_parameter: float

    def training(self, name: str, smallest_patch: int, *, is_adversarial: bool | None = None) -> _Training:
        """Count and time a training step, with activations computed again where it does not fit otherwise."""
        extent, device = self.extent, self.machine.device
        step = training_step(
            self.config,
            name,
            num_types=extent.num_types,
            num_labels=extent.num_labels,
            spacing_mm=extent.spacing_mm,
            device=device,
            is_adversarial=is_adversarial,
        )
        cost = cost_of(
            step.pass_of,
            patch_voxels=step.patch_voxels,
            smallest_patch=smallest_patch,
            updating_seconds=step.num_parameters * self.updating_seconds_a_parameter,
            device=device,
            free_bytes=self.machine.device_bytes - self.machine.resident_bytes,
        )
        held = step.held_bytes(cost.peak_bytes)
        if not is_checkpointed(self.config.hardware.activation_checkpointing, held, self.machine):
            return _Training(step, cost)
        count = count_pass(step.pass_of, step.patch_voxels, device, is_checkpointed=True)
        seconds = cost.updating_seconds + cost.seconds_of(count.flops)
        spared = replace(cost, flops=count.flops, peak_bytes=count.peak_bytes, seconds=seconds, is_checkpointed=True)
        return _Training(step, spared)

    def count(self, pass_of: PassOf, patch_voxels: int) -> Count:
        """Count a pass of a trained network."""
        return count_pass(pass_of, patch_voxels, self.machine.device)

    def cache(self) -> StageEstimate:
        """Every case at the networks' spacing, int16 HU and uint8 labels; resampling holds some copies of one scan."""
        extent = self.extent
        number = len(extent.prepared_voxels)
        return StageEstimate(
            stage="cache",
            what=f"{number} scan{'' if number == 1 else 's'}",
            seconds=number * 4 * extent.seconds_read,
            seconds_a_step=4 * extent.seconds_read,
            memory_bytes=0,
            host_bytes=int(16 * extent.scan_voxels + 8 * max(extent.prepared_voxels, default=0)),
            disk_bytes=3 * sum(extent.prepared_voxels),
            measured_patch_voxels=0,
            patch_voxels=0,
        )

    def autoencoder(self) -> tuple[StageEstimate, _Training]:
        """Steps without discriminators, then steps with them; also what a step without takes."""
        config = self.config.autoencoder
        plain, adversarial = (
            self.training("autoencoder", _SMALLEST_PATCH, is_adversarial=flag) for flag in (False, True)
        )
        steps_an_epoch = config.steps_per_epoch or math.ceil(self.extent.num_train / config.batch_size)
        num_steps = config.num_epochs * steps_an_epoch
        start = config.adversarial_start_epoch if config.adversarial_weight > 0 else config.num_epochs
        num_plain = min(start, config.num_epochs) * steps_an_epoch
        drawing = config.batch_size * drawing_seconds(config.patch_voxels, self.extent.window_hu)
        timed = num_plain * plain.cost.seconds + (num_steps - num_plain) * adversarial.cost.seconds
        seconds = timed + num_steps * drawing
        codebook = 4 * config.codebook_size * (2 * config.latent_channels + 1)
        stage = StageEstimate(
            stage="autoencoder",
            what=adversarial.said(f"{num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³"),
            seconds=seconds,
            seconds_a_step=seconds / num_steps,
            memory_bytes=max(plain.held_bytes, adversarial.held_bytes),
            host_bytes=0,
            disk_bytes=_STATE_BYTES * plain.step.num_parameters + 2 * codebook,
            measured_patch_voxels=adversarial.cost.measured_patch_voxels,
            patch_voxels=config.patch_voxels,
        )
        return stage, plain

    def diffusion(self, first: _Training) -> tuple[StageEstimate, _Training]:
        """The lesions' patches encoded with the lesion and without, and kept; then the steps; also what one takes."""
        config, autoencoder = self.config.diffusion, self.config.autoencoder
        training = self.training(PROMPTLESION, _SMALLEST_LATENT * autoencoder.downsampling)
        encode = self.count(
            partial(encoding, autoencoder, batch_size=_ENCODE_BATCH),
            config.patch_voxels,
        )
        num_patches = self.extent.num_lesions * config.patches_per_lesion
        edge = config.patch_voxels // autoencoder.downsampling
        numbers = num_patches * (2 * autoencoder.latent_channels + 1) * edge**3
        whole = num_patches * config.patch_voxels**3 if config.mask == "whole" else 0
        warping = config.warp_probability * warping_seconds(config.patch_voxels) if config.warp_probability else 0.0
        drawing = num_patches * (drawing_seconds(config.patch_voxels, self.extent.window_hu) + warping)
        encoding_seconds = 2 * math.ceil(num_patches / _ENCODE_BATCH) * first.cost.seconds_of(encode.flops) + drawing
        steps = f"{config.num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³"
        num_frozen = num_parameters(lambda: {"autoencoder": build_autoencoder(autoencoder)})
        stage = StageEstimate(
            stage="diffusion",
            what=training.said(f"{steps}, after encoding {num_patches:,} of them"),
            seconds=config.num_steps * training.cost.seconds + encoding_seconds,
            seconds_a_step=training.cost.seconds,
            memory_bytes=max(training.held_bytes + _WEIGHT_BYTES * num_frozen, encode.peak_bytes),
            host_bytes=4 * numbers + 2 * whole,  # one by one, then all of them together beside
            disk_bytes=(_STATE_BYTES + _WEIGHT_BYTES) * training.step.num_parameters + 2 * numbers + whole,
            measured_patch_voxels=training.cost.measured_patch_voxels,
            patch_voxels=config.patch_voxels,
        )
        return stage, training

    def synthesis(self, first: _Training, second: _Training) -> StageEstimate:
        """A patch encoded with its lesion and without, sampled and decoded with others; its scan read and written."""
        config, autoencoder = self.config.synthesis, self.config.autoencoder
        patch_voxels, device = self.config.diffusion.patch_voxels, self.machine.device
        batch_size = lesions_at_once(device, patch_voxels=patch_voxels)
        num_types = self.extent.num_types
        denoise = self.count(partial(denoising, self.config, batch_size=batch_size, num_types=num_types), patch_voxels)
        encode = self.count(partial(encoding, autoencoder, batch_size=2 * batch_size), patch_voxels)
        decode = self.count(partial(decoding, autoencoder, batch_size=batch_size), patch_voxels)
        denoising_seconds = second.cost.seconds_of(denoise.flops)
        passes = config.num_steps * (1 if config.guidance_scale == 1 else 2)
        coding_seconds = first.cost.seconds_of(encode.flops + (1 + config.keep_noise) * decode.flops)
        reading = 1.3 * self.extent.seconds_read
        writing = 1.3 * self.extent.scan_voxels * compressing_seconds_a_voxel()
        peak_bytes = max(cost.peak_bytes for cost in (denoise, encode, decode))
        what = f"one lesion, {batch_size} at once, {config.lesions_per_case} to a scan, {passes} passes"
        return StageEstimate(
            stage="synthesis",
            what=second.said(what),
            seconds=(passes * denoising_seconds + coding_seconds) / batch_size
            + (reading + writing) / config.lesions_per_case,
            seconds_a_step=denoising_seconds,
            memory_bytes=peak_bytes + _WEIGHT_BYTES * second.step.num_parameters,
            host_bytes=int(open_scans_bytes(device, scan_voxels=self.extent.scan_voxels)),
            disk_bytes=int(2 * self.extent.scan_voxels / config.lesions_per_case),
            measured_patch_voxels=second.cost.measured_patch_voxels,
            patch_voxels=patch_voxels,
        )

    def segmentation(self) -> StageEstimate:
        """Steps, and windows over whole validation scans, whose scores are kept for every label at once."""
        config, extent = self.config.segmentation, self.extent
        # nnU-Net's network halves more often
        training = self.training("segmentation", _SMALLEST_PATCH * (1 if config.network == "unet" else 2))
        network = partial(segmenting, config, num_labels=extent.num_labels, spacing_mm=extent.spacing_mm)
        window = self.count(partial(network, batch_size=_WINDOWS_AT_ONCE), config.patch_voxels)
        stride = config.patch_voxels * (1 - config.window_overlap)
        voxels = float(np.mean(extent.prepared_voxels or (0,)))
        windows_a_scan = max(1.0, (voxels ** (1 / 3) / stride) ** 3)
        steps_an_epoch = config.steps_per_epoch or math.ceil(extent.num_train / config.batch_size)
        num_steps = config.num_epochs * steps_an_epoch
        num_validations = math.ceil(config.num_epochs / config.validate_every_epochs) * extent.num_validation
        augmentation = build_augmentation(config)
        drawing = config.batch_size * drawing_seconds(config.patch_voxels, extent.window_hu, augmentation)
        window_seconds = math.ceil(windows_a_scan / _WINDOWS_AT_ONCE) * training.cost.seconds_of(window.flops)
        steps = f"at most {num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³"
        return StageEstimate(
            stage="segmentation",
            what=training.said(f"{steps}, and validation"),
            seconds=num_steps * (training.cost.seconds + drawing) + num_validations * window_seconds,
            seconds_a_step=training.cost.seconds + drawing,
            memory_bytes=training.held_bytes,
            host_bytes=4 * (2 * extent.num_labels + 4) * max(extent.prepared_voxels, default=0),
            disk_bytes=(_STATE_BYTES + _WEIGHT_BYTES) * training.step.num_parameters,
            measured_patch_voxels=training.cost.measured_patch_voxels,
            patch_voxels=config.patch_voxels,
        )


def estimate_stages(
    config: Config, extent: Extent, machine: Machine, *, on_progress: Callable[[], None] | None = None
) -> list[StageEstimate]:
    """Estimate the cache, the three trainings, and painting one lesion, in the order they come in.

    `on_progress` is called after each of `NUM_STAGES`.

    Raises:
        ValueError: a file of weights that the configuration names is not there.
    """
    estimator = _Estimator(config, extent, machine, updating_seconds_a_parameter(machine.device))
    stages: list[StageEstimate] = []

    def add(stage: StageEstimate) -> None:
        """Add a stage; on a CPU all memory is the host's."""
        host = machine.resident_bytes + stage.host_bytes
        is_host = machine.device.type == "cpu"
        memory = stage.memory_bytes + host if is_host else stage.memory_bytes
        stages.append(replace(stage, memory_bytes=memory, host_bytes=0 if is_host else host))
        if on_progress is not None:
            on_progress()

    add(estimator.cache())
    stage, first = estimator.autoencoder()
    add(stage)
    stage, second = estimator.diffusion(first)
    add(stage)
    add(estimator.synthesis(first, second))
    add(estimator.segmentation())
    return stages
