"""Training of stage 1: reconstruction first, the discriminators from a stated epoch on."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from promptlesion.autoencoder.autoencoder import Autoencoder, build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import build_discriminators
from promptlesion.autoencoder.lesion_bias import measure_lesion_bias
from promptlesion.autoencoder.loss import AutoencoderLosses
from promptlesion.autoencoder.network import BLOCKS
from promptlesion.autoencoder.perceptual import build_perceptual_loss, perceptual_identity
from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.trained_on import trained_on
from promptlesion.training.device import autocast, place, resolve_device, send
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import Loss, Stage, build_state, train
from promptlesion.training.run import Run
from promptlesion.training.seeding import derive_seed, numpy_generator, torch_generator

_SCALE_BATCHES = 16


def train_autoencoder(
    *,
    train_cases: Sequence[CachedCase],
    validation_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    config: AutoencoderConfig,
    out: Path,
    seed: int,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> Run:
    """Train the VQGAN on patches of the training cases, or go on with an interrupted run.

    Args:
        train_cases: cases whose voxels the networks see.
        validation_cases: cases on which the HU bias inside lesions is measured at the end.
        spec: window, spacing and lesion types of the dataset.
        config: networks and training.
        out: the run's folder.
        seed: of the weights and of every draw.
        device: `auto` or a device's name.
        hardware: how the machine is used; it changes results by rounding at most.

    Returns:
        The finished run; its `checkpoint/` holds the networks and the card.
    """
    torch_device, share = resolve_device(device), share_of_batch(config.batch_size)
    fingerprint = data_fingerprint(train_cases)
    run = Run(
        out,
        stage="autoencoder",
        config=config.model_dump(mode="json"),
        seed=seed,
        inputs={
            "training cases": ", ".join(case.name for case in train_cases),
            "data": fingerprint,
            **perceptual_identity(config),
        },
        device=torch_device,
    )
    if run.is_finished:
        return run
    batches = PatchBatches(
        train_cases,
        spec=spec,
        patch_voxels=config.patch_voxels,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "autoencoder"),
    )
    steps_per_epoch = config.steps_per_epoch or math.ceil(len(train_cases) / config.batch_size)
    torch.manual_seed(derive_seed(seed, "autoencoder", "weights"))
    autoencoder = place(build_autoencoder(config), torch_device)
    discriminators = place(build_discriminators(config), torch_device)
    num_steps = config.num_epochs * steps_per_epoch
    losses = AutoencoderLosses(
        autoencoder, discriminators, build_perceptual_loss(config, torch_device), config, torch_device
    )

    def draw(step: int) -> tuple[Tensor, Tensor]:
        patches = batches.draw(step, share)
        return send(patches.image, torch_device), send(patches.lesion_mask, torch_device)

    def losses_of(batch: tuple[Tensor, Tensor], step: int) -> Iterator[Loss]:
        return losses(
            *batch,
            positions=_slice_positions(config, numpy_generator(seed, "autoencoder", "slices", step)),
            generator=torch_generator(seed, "autoencoder", "codes", step),
            is_quantized=step >= config.quantizer_start_epoch * steps_per_epoch,
            is_adversarial=config.adversarial_weight > 0 and step >= config.adversarial_start_epoch * steps_per_epoch,
        )

    def card() -> dict[str, object]:
        autoencoder.eval()
        _measure_scale(autoencoder, batches, num_steps=num_steps, config=config, device=torch_device)
        bias = measure_lesion_bias(
            autoencoder,
            validation_cases,
            spec=spec,
            patch_voxels=config.patch_voxels,
            precision=config.precision,
            device=torch_device,
        )
        return {
            "stage": "autoencoder",
            "method": "vqgan",
            **spec.facts(),
            "latent_scale": autoencoder.latent_scale(),
            "data_fingerprint": fingerprint,
            "config": config.model_dump(mode="json"),
            "dataset": spec.model_dump(mode="json"),
            "training_cases": [case.name for case in train_cases],
            **trained_on(train_cases).as_card(),
            "seed": seed,
            "lesion_bias": [entry.as_json() for entry in bias],
            **perceptual_identity(config),
        }

    stage = Stage(
        state=build_state(config, {"autoencoder": autoencoder, "discriminators": discriminators}),
        num_steps=num_steps,
        draw=draw,
        losses=losses_of,
        compiled=autoencoder,
        blocks=BLOCKS,
        max_gradient_norm=config.max_gradient_norm,
        checkpoint_every_steps=config.checkpoint_every_steps,
        card=card,
        parts={"autoencoder": "autoencoder"},
    )
    train(run, stage, config, device=torch_device, hardware=hardware.model_copy(update={"compile": "off"}))
    run.finish()
    return run


def _slice_positions(config: AutoencoderConfig, generator: np.random.Generator) -> list[list[int]]:
    """Draw where the slices of the perceptual loss and of the slice discriminator lie on each axis."""
    positions = generator.integers(config.patch_voxels, size=(3, config.slices_per_axis))
    return [[int(position) for position in axis] for axis in positions]


@torch.no_grad()
def _measure_scale(
    autoencoder: Autoencoder,
    batches: PatchBatches,
    *,
    num_steps: int,
    config: AutoencoderConfig,
    device: torch.device,
) -> None:
    """Set the latent's scale from patches drawn as in training."""
    with autocast(device, config.precision):
        raw = [autoencoder.encoder(batches.draw(num_steps + index).image.to(device)) for index in range(_SCALE_BATCHES)]
    autoencoder.set_latent_scale(torch.cat(raw))
