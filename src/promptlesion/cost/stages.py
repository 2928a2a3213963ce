"""The stages one by one: what each does with a configuration on a dataset, counted and measured."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from promptlesion.autoencoder.perceptual import build_perceptual_loss
from promptlesion.config import Config
from promptlesion.cost.estimate import Extent, StageEstimate
from promptlesion.cost.fitting import MOMENTS_BYTES, is_checkpointed
from promptlesion.cost.machine import Machine, compressing_seconds_a_voxel, drawing_seconds
from promptlesion.cost.measure import Count, PassCost, PassOf, cost_of, count_pass, updating_seconds_a_parameter
from promptlesion.cost.parameters import count_parameters
from promptlesion.cost.passes import (
    Bench,
    Pass,
    autoencoder_step,
    decoding,
    denoising,
    diffusion_step,
    encoding,
    segmentation_step,
    segmenting,
)
from promptlesion.segmentation.augmentation import build_augmentation
from promptlesion.synthesis.batch_size import lesions_at_once, open_scans_bytes

NUM_STAGES = 5
_STATE_BYTES = 16
"""That a saved training state has for each: the weights, their average or best, and Adam's moments."""
_ENCODE_BATCH = 4
_WINDOWS_AT_ONCE = 4
_SMALLEST_PATCH = 32
_SMALLEST_LATENT = 12
"""Edges that are timed first: with less, the networks' innermost resolution is computed otherwise."""


@dataclass(frozen=True)
class _Estimator:
    """The stages, which share what they are estimated from."""

    config: Config
    extent: Extent
    machine: Machine
    parameters: dict[str, int]
    updating_seconds_a_parameter: float

    def cost(self, pass_of: PassOf, patch_voxels: int, smallest_patch: int, num_parameters: int) -> PassCost:
        """Count and time a training step, with activations computed again where it does not fit otherwise."""
        cost = cost_of(
            pass_of,
            patch_voxels=patch_voxels,
            smallest_patch=smallest_patch,
            updating_seconds=num_parameters * self.updating_seconds_a_parameter,
            device=self.machine.device,
            free_bytes=self.machine.device_bytes - self.machine.resident_bytes,
        )
        held = cost.peak_bytes + MOMENTS_BYTES * num_parameters
        if not is_checkpointed(self.config.hardware.activation_checkpointing, held, self.machine):
            return cost
        count = count_pass(pass_of, patch_voxels, self.machine.device, is_checkpointed=True)
        return replace(
            cost,
            flops=count.flops,
            peak_bytes=count.peak_bytes,
            seconds=cost.updating_seconds + cost.seconds_of(count.flops),
            is_checkpointed=True,
        )

    def count(self, pass_of: PassOf, patch_voxels: int) -> Count:
        """Count a pass of a trained network."""
        return count_pass(pass_of, patch_voxels, self.machine.device)

    def stage(
        self,
        name: str,
        what: str,
        cost: PassCost | None,
        *,
        seconds: float,
        seconds_a_step: float,
        device_bytes: int | float,
        host_bytes: int | float,
        disk_bytes: int | float,
        patch_voxels: int,
    ) -> StageEstimate:
        """Put the figures together; a CPU's memory is the host's."""
        host = self.machine.resident_bytes + host_bytes
        is_host = self.machine.device.type == "cpu"
        return StageEstimate(
            stage=name,
            what=f"{what}, activations computed again" if cost is not None and cost.is_checkpointed else what,
            seconds=seconds,
            seconds_a_step=seconds_a_step,
            memory_bytes=int(device_bytes + host) if is_host else int(device_bytes),
            host_bytes=0 if is_host else int(host),
            disk_bytes=int(disk_bytes),
            measured_patch_voxels=cost.measured_patch_voxels if cost is not None else 0,
            patch_voxels=patch_voxels,
        )

    def cache(self) -> StageEstimate:
        """Every case at the networks' spacing, int16 HU and uint8 labels; resampling holds some copies of one scan."""
        extent = self.extent
        voxels = sum(extent.prepared_voxels)
        number = len(extent.prepared_voxels)
        return self.stage(
            "cache",
            f"{number} scan{'' if number == 1 else 's'}",
            None,
            seconds=number * 4 * extent.seconds_read,
            seconds_a_step=4 * extent.seconds_read,
            device_bytes=0,
            host_bytes=16 * extent.scan_voxels + 8 * max(extent.prepared_voxels, default=0),
            disk_bytes=3 * voxels,
            patch_voxels=0,
        )

    def autoencoder(self) -> tuple[StageEstimate, PassCost]:
        """Steps without discriminators, then steps with them; also what a step without takes."""
        config = self.config.autoencoder
        num_parameters = self.parameters["autoencoder"] + self.parameters["discriminators"]
        perceptual = build_perceptual_loss(config, self.machine.device)

        def step_of(edge: int, bench: Bench, *, is_adversarial: bool) -> Pass:
            return autoencoder_step(config, perceptual, patch_voxels=edge, is_adversarial=is_adversarial, bench=bench)

        plain, adversarial = (
            self.cost(partial(step_of, is_adversarial=flag), config.patch_voxels, _SMALLEST_PATCH, num_parameters)
            for flag in (False, True)
        )
        steps_an_epoch = config.steps_per_epoch or math.ceil(self.extent.num_train / config.batch_size)
        num_steps = config.num_epochs * steps_an_epoch
        start = config.adversarial_start_epoch if config.adversarial_weight > 0 else config.num_epochs
        num_plain = min(start, config.num_epochs) * steps_an_epoch
        drawing = config.batch_size * drawing_seconds(config.patch_voxels, self.extent.window_hu)
        seconds = num_plain * plain.seconds + (num_steps - num_plain) * adversarial.seconds + num_steps * drawing
        codebook = 4 * config.codebook_size * (2 * config.latent_channels + 1)
        stage = self.stage(
            "autoencoder",
            f"{num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³",
            adversarial,
            seconds=seconds,
            seconds_a_step=seconds / num_steps,
            device_bytes=max(plain.peak_bytes, adversarial.peak_bytes) + MOMENTS_BYTES * num_parameters,
            host_bytes=0,
            disk_bytes=_STATE_BYTES * num_parameters + 2 * codebook,
            patch_voxels=config.patch_voxels,
        )
        return stage, plain

    def diffusion(self, first: PassCost) -> tuple[StageEstimate, PassCost]:
        """The lesions' patches encoded with the lesion and without, and kept; then the steps; also what one takes."""
        config, autoencoder = self.config.diffusion, self.config.autoencoder
        num_parameters = self.parameters["denoiser"]
        step = self.cost(
            lambda edge, bench: diffusion_step(
                self.config, patch_voxels=edge, num_types=self.extent.num_types, bench=bench
            ),
            config.patch_voxels,
            _SMALLEST_LATENT * autoencoder.downsampling,
            num_parameters,
        )
        encode = self.count(
            lambda edge, bench: encoding(autoencoder, patch_voxels=edge, batch_size=_ENCODE_BATCH, bench=bench),
            config.patch_voxels,
        )
        num_patches = self.extent.num_lesions * config.patches_per_lesion
        edge = config.patch_voxels // autoencoder.downsampling
        numbers = num_patches * (2 * autoencoder.latent_channels + 1) * edge**3
        drawing = num_patches * drawing_seconds(config.patch_voxels, self.extent.window_hu)
        encoding_seconds = 2 * math.ceil(num_patches / _ENCODE_BATCH) * first.seconds_of(encode.flops) + drawing
        stage = self.stage(
            "diffusion",
            f"{config.num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³, "
            f"after encoding {num_patches:,} of them",
            step,
            seconds=config.num_steps * step.seconds + encoding_seconds,
            seconds_a_step=step.seconds,
            device_bytes=max(
                step.peak_bytes + MOMENTS_BYTES * num_parameters + 4 * self.parameters["autoencoder"],
                encode.peak_bytes,
            ),
            host_bytes=6 * numbers,  # float32 while they are encoded, then half of that beside them
            disk_bytes=_STATE_BYTES * num_parameters + 4 * num_parameters + 2 * numbers,
            patch_voxels=config.patch_voxels,
        )
        return stage, step

    def synthesis(self, first: PassCost, second: PassCost) -> StageEstimate:
        """A patch encoded with its lesion and without, sampled and decoded with others; its scan read and written."""
        config, autoencoder = self.config.synthesis, self.config.autoencoder
        patch_voxels, device = self.config.diffusion.patch_voxels, self.machine.device
        batch_size = lesions_at_once(device, patch_voxels=patch_voxels)
        denoise = self.count(
            lambda edge, bench: denoising(
                self.config, patch_voxels=edge, batch_size=batch_size, num_types=self.extent.num_types, bench=bench
            ),
            patch_voxels,
        )
        encode = self.count(
            lambda edge, bench: encoding(autoencoder, patch_voxels=edge, batch_size=2 * batch_size, bench=bench),
            patch_voxels,
        )
        decode = self.count(
            lambda edge, bench: decoding(autoencoder, patch_voxels=edge, batch_size=batch_size, bench=bench),
            patch_voxels,
        )
        denoising_seconds = second.seconds_of(denoise.flops)
        passes = config.num_steps * (1 if config.guidance_scale == 1 else 2)
        reading = 1.3 * self.extent.seconds_read
        writing = 1.3 * self.extent.scan_voxels * compressing_seconds_a_voxel()
        seconds = passes * denoising_seconds + first.seconds_of(encode.flops + (1 + config.keep_noise) * decode.flops)
        return self.stage(
            "synthesis",
            f"one lesion, {batch_size} at once, {config.lesions_per_case} to a scan, {passes} passes",
            second,
            seconds=seconds / batch_size + (reading + writing) / config.lesions_per_case,
            seconds_a_step=denoising_seconds,
            device_bytes=max(cost.peak_bytes for cost in (denoise, encode, decode)) + 4 * self.parameters["denoiser"],
            host_bytes=open_scans_bytes(device, scan_voxels=self.extent.scan_voxels),
            disk_bytes=2 * self.extent.scan_voxels / config.lesions_per_case,
            patch_voxels=patch_voxels,
        )

    def segmentation(self) -> StageEstimate:
        """Steps, and windows over whole validation scans, whose scores are kept for every label at once."""
        config, extent = self.config.segmentation, self.extent
        num_parameters = self.parameters["segmentation"]
        step = self.cost(
            lambda edge, bench: segmentation_step(
                config, patch_voxels=edge, num_labels=extent.num_labels, bench=bench, spacing_mm=extent.spacing_mm
            ),
            config.patch_voxels,
            _SMALLEST_PATCH if config.network == "unet" else 2 * _SMALLEST_PATCH,  # which nnU-Net's halves more often
            num_parameters,
        )
        window = self.count(
            lambda edge, bench: segmenting(
                config,
                patch_voxels=edge,
                num_labels=extent.num_labels,
                batch_size=_WINDOWS_AT_ONCE,
                bench=bench,
                spacing_mm=extent.spacing_mm,
            ),
            config.patch_voxels,
        )
        stride = config.patch_voxels * (1 - config.window_overlap)
        voxels = float(np.mean(extent.prepared_voxels or (0,)))
        windows_a_scan = max(1.0, (voxels ** (1 / 3) / stride) ** 3)
        steps_an_epoch = config.steps_per_epoch or math.ceil(extent.num_train / config.batch_size)
        num_steps = config.num_epochs * steps_an_epoch
        augmentation = build_augmentation(config)
        num_validations = math.ceil(config.num_epochs / config.validate_every_epochs) * extent.num_validation
        drawing = config.batch_size * drawing_seconds(config.patch_voxels, extent.window_hu, augmentation)
        validating = num_validations * math.ceil(windows_a_scan / _WINDOWS_AT_ONCE) * step.seconds_of(window.flops)
        seconds = num_steps * (step.seconds + drawing) + validating
        return self.stage(
            "segmentation",
            f"at most {num_steps:,} steps of {config.batch_size} patches of {config.patch_voxels}³, and validation",
            step,
            seconds=seconds,
            seconds_a_step=step.seconds + drawing,
            device_bytes=step.peak_bytes + MOMENTS_BYTES * num_parameters,
            host_bytes=4 * (2 * extent.num_labels + 4) * max(extent.prepared_voxels, default=0),
            disk_bytes=_STATE_BYTES * num_parameters + 4 * num_parameters,
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
    totals = {
        network.name.split(" (")[0]: network.total
        for network in count_parameters(config, num_types=extent.num_types, spacing_mm=extent.spacing_mm)
    }
    parameters = {
        "autoencoder": totals["autoencoder"],
        "discriminators": totals["discriminators"],
        "denoiser": totals["diffusion U-Net"] + totals.get("prompt encoder", 0),
        "segmentation": totals["segmentation"],
    }
    estimator = _Estimator(config, extent, machine, parameters, updating_seconds_a_parameter(machine.device))
    stages: list[StageEstimate] = []

    def add(stage: StageEstimate) -> None:
        stages.append(stage)
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
