"""Training of stage 1: reconstruction first, the discriminators from a stated epoch on."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from promptlesion.autoencoder.autoencoder import Autoencoder, build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import (
    Discriminators,
    adaptive_weight,
    axis_slices,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from promptlesion.autoencoder.lesion_bias import measure_lesion_bias
from promptlesion.autoencoder.loss import weighted_l1
from promptlesion.autoencoder.network import BLOCKS
from promptlesion.autoencoder.perceptual import build_perceptual_loss, perceptual_identity
from promptlesion.autoencoder.quantizer import perplexity
from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.trained_on import trained_on
from promptlesion.training.activation_checkpointing import checkpoint_activations
from promptlesion.training.checkpoint import save_checkpoint
from promptlesion.training.descent import build_adam, descend
from promptlesion.training.device import autocast, place, resolve_device, send
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import share_of_batch
from promptlesion.training.learning_rate import set_learning_rate
from promptlesion.training.prefetch import prefetched
from promptlesion.training.run import Report, Run
from promptlesion.training.seeding import derive_seed, numpy_generator, torch_generator
from promptlesion.training.state import TrainState

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
    discriminators = place(
        Discriminators(channels=config.discriminator_channels, num_layers=config.discriminator_layers),
        torch_device,
    )
    state = TrainState(
        networks={"autoencoder": autoencoder, "discriminators": discriminators},
        optimizers={
            name: build_adam(network, learning_rate=config.learning_rate, betas=config.adam_betas)
            for name, network in (("autoencoder", autoencoder), ("discriminators", discriminators))
        },
    )
    run.resume(state)
    num_steps = config.num_epochs * steps_per_epoch
    reports = _steps(
        state,
        batches,
        share,
        config=config,
        num_steps=num_steps,
        adversarial_start_step=config.adversarial_start_epoch * steps_per_epoch,
        quantizer_start_step=config.quantizer_start_epoch * steps_per_epoch,
        seed=seed,
        device=torch_device,
        hardware=hardware,
    )
    run.train(state, reports, num_steps=num_steps, checkpoint_every_steps=config.checkpoint_every_steps)
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
    save_checkpoint(
        run.checkpoint_folder,
        card={
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
        },
        parts={"autoencoder": autoencoder.state_dict()},
    )
    run.finish()
    return run


def _steps(
    state: TrainState,
    batches: PatchBatches,
    share: range,
    *,
    config: AutoencoderConfig,
    num_steps: int,
    adversarial_start_step: int,
    quantizer_start_step: int,
    seed: int,
    device: torch.device,
    hardware: HardwareConfig,
) -> Iterator[Report]:
    """Train step by step on this process's share of each batch, yielding the losses of each."""
    autoencoder, discriminators = state.networks["autoencoder"], state.networks["discriminators"]
    assert isinstance(autoencoder, Autoencoder)
    autoencoder.train()
    perceptual = build_perceptual_loss(config, device)

    def draw(step: int) -> tuple[Tensor, Tensor]:
        patches = batches.draw(step, share)
        return send(patches.image, device), send(patches.lesion_mask, device)

    if hardware.activation_checkpointing == "on":
        checkpoint_activations(autoencoder, blocks=BLOCKS)
    steps = range(state.step, num_steps)
    for image, lesion_mask in prefetched(draw, steps, num_batches=hardware.prefetch_batches):
        is_adversarial = config.adversarial_weight > 0 and state.step >= adversarial_start_step
        is_quantized = state.step >= quantizer_start_step
        for optimizer in state.optimizers.values():
            set_learning_rate(
                optimizer,
                start=config.learning_rate,
                step=state.step,
                num_steps=num_steps,
                decay=config.learning_rate_decay,
            )
        positions = _slice_positions(config, numpy_generator(seed, "autoencoder", "slices", state.step))
        generator = torch_generator(seed, "autoencoder", "codes", state.step)
        with autocast(device, config.precision):
            reconstruction, quantized = autoencoder.reconstruct(image, generator, is_quantized=is_quantized)
            l1 = weighted_l1(reconstruction, image, lesion_mask, lesion_weight=config.lesion_weight)
            image_slices, slices = axis_slices(image, positions), axis_slices(reconstruction, positions)
            faithful = l1
            report: dict[str, float | Tensor] = {"l1": l1.detach(), "commitment": quantized.commitment.detach()}
            if perceptual is not None:
                sees_patches = config.perceptual_network == "medicalnet"
                compared = (reconstruction, image) if sees_patches else (slices, image_slices)
                distance = perceptual(*compared)
                faithful = faithful + config.perceptual_weight * distance
                report["perceptual"] = distance.detach()
            loss = faithful + config.commitment_weight * quantized.commitment
            if is_adversarial:
                real = discriminators(image, image_slices)
                generated = discriminators(reconstruction, slices)
                fooling, matching = generator_loss(generated), feature_matching_loss(real, generated)
                report |= {"generator": fooling.detach(), "feature_matching": matching.detach()}
                if config.adversarial_weighting == "adaptive":
                    weight = adaptive_weight(faithful, fooling, autoencoder.last_weight)
                    fooling = weight * fooling
                    report["adaptive_weight"] = weight.detach()
                loss = loss + config.adversarial_weight * fooling + config.feature_matching_weight * matching
        descend(loss, autoencoder, state.optimizers["autoencoder"], max_gradient_norm=config.max_gradient_norm)
        if is_adversarial:
            with autocast(device, config.precision):
                judged = discriminator_loss(real, discriminators(reconstruction.detach(), slices.detach()))
            descend(
                judged,
                discriminators,
                state.optimizers["discriminators"],
                max_gradient_norm=config.max_gradient_norm,
            )
            report["discriminator"] = judged.detach()
        if is_quantized:
            report["codebook_perplexity"] = perplexity(quantized.codes, config.codebook_size)
        state.step += 1
        yield report


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
