"""Training of stage 1: reconstruction first, the discriminators from a stated epoch on."""

import math
from collections.abc import Iterator, Sequence

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
from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.training_data import TrainingData
from promptlesion.training.device import autocast, place, send
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import Loss, Stage, build_state, train
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import derive_seed, numpy_generator, torch_generator

_SCALE_BATCHES = 16


def train_autoencoder(
    data: TrainingData, *, validation_cases: Sequence[CachedCase], config: AutoencoderConfig, options: RunOptions
) -> Run:
    """Train the VQGAN on patches of the training cases, or go on with an interrupted run.

    On the validation cases the HU bias inside lesions is measured at the end. The finished run's `checkpoint/` holds
    the networks and the card.
    """
    share, seed, spec = share_of_batch(config.batch_size), options.seed, data.spec
    run = data.open_run(options, stage="autoencoder", config=config, inputs=perceptual_identity(config))
    if run.is_finished:
        return run
    device = run.device
    batches = PatchBatches(
        data.cases,
        spec=spec,
        patch_voxels=config.patch_voxels,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "autoencoder"),
    )
    steps_per_epoch = config.steps_per_epoch or math.ceil(len(data.cases) / config.batch_size)
    torch.manual_seed(derive_seed(seed, "autoencoder", "weights"))
    autoencoder = place(build_autoencoder(config), device)
    discriminators = place(build_discriminators(config), device)
    num_steps = config.num_epochs * steps_per_epoch
    losses = AutoencoderLosses(autoencoder, discriminators, build_perceptual_loss(config, device), config, device)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        patches = batches.draw(step, share)
        return send(patches.image, device), send(patches.lesion_mask, device)

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
        _measure_scale(autoencoder, batches, num_steps=num_steps, config=config, device=device)
        bias = measure_lesion_bias(
            autoencoder,
            validation_cases,
            spec=spec,
            patch_voxels=config.patch_voxels,
            precision=config.precision,
            device=device,
        )
        return {
            **run.facts("vqgan"),
            **data.facts(),
            "latent_scale": autoencoder.latent_scale(),
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
    train(run, stage, config, hardware=options.hardware.model_copy(update={"compile": "off"}))
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
