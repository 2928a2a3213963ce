"""One pass of each stage's networks on made-up patches, built from its configuration: to be counted and timed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from promptlesion.autoencoder import network as autoencoder_network
from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import (
    Discriminators,
    adaptive_weight,
    axis_slices,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from promptlesion.autoencoder.loss import weighted_l1
from promptlesion.autoencoder.perceptual import PerceptualLoss
from promptlesion.baselines.voxel_denoiser import build_voxel_denoiser
from promptlesion.config import Config
from promptlesion.diffusion import network as diffusion_network
from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.diffusion.loss import denoising_loss
from promptlesion.segmentation import network as segmentation_network
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.activation_checkpointing import checkpoint_activations
from promptlesion.training.descent import descend
from promptlesion.training.device import autocast, place
from promptlesion.training.ema import update_average

Pass = Callable[[], object]
"""Runs the networks once, in training with the optimiser's step."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Bench:
    """Where a pass is built: for real, or without data to be counted."""

    device: torch.device
    is_counted: bool
    """Whether tensors have shapes and no data; then modules cannot be moved, and Adam has no step."""
    is_checkpointed: bool = False
    """Whether training computes activations again in the backward pass."""

    def place(self, network: Network) -> Network:
        """Move a network as training does."""
        return network if self.is_counted else place(network, self.device)

    def spare(self, network: nn.Module, blocks: tuple[type[nn.Module], ...]) -> None:
        """Checkpoint the activations of these blocks as training does, where asked for."""
        if self.is_checkpointed:
            checkpoint_activations(network, blocks=blocks)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return Adam; where it is counted one without moments, which are 8 bytes a parameter more."""
        if self.is_counted:
            return torch.optim.SGD(network.parameters(), lr=0.0)
        return torch.optim.Adam(network.parameters(), lr=1e-5)


def autoencoder_step(
    config: AutoencoderConfig,
    perceptual: PerceptualLoss | None,
    *,
    patch_voxels: int,
    is_adversarial: bool,
    bench: Bench,
) -> Pass:
    """Build a training step of stage 1; see `autoencoder.train`."""
    autoencoder = bench.place(build_autoencoder(config)).train()
    bench.spare(autoencoder, autoencoder_network.BLOCKS)
    autoencoder.quantizer.eval()  # its restarts depend on the data, and cost little
    discriminators = bench.place(
        Discriminators(channels=config.discriminator_channels, num_layers=config.discriminator_layers)
    )
    optimizer, judge = bench.optimizer(autoencoder), bench.optimizer(discriminators)
    image = torch.rand(config.batch_size, 1, patch_voxels, patch_voxels, patch_voxels, device=bench.device)
    mask = torch.zeros_like(image, dtype=torch.bool)
    positions = [[patch_voxels // 2] * config.slices_per_axis] * 3

    def step() -> None:
        with autocast(bench.device, config.precision):
            reconstruction, quantized = autoencoder.reconstruct(image)
            loss = weighted_l1(reconstruction, image, mask, lesion_weight=config.lesion_weight)
            image_slices, slices = axis_slices(image, positions), axis_slices(reconstruction, positions)
            if perceptual is not None:
                sees_patches = config.perceptual_network == "medicalnet"
                compared = (reconstruction, image) if sees_patches else (slices, image_slices)
                loss = loss + config.perceptual_weight * perceptual(*compared)
            loss = faithful = loss + config.commitment_weight * quantized.commitment
            if is_adversarial:
                real, generated = discriminators(image, image_slices), discriminators(reconstruction, slices)
                fooling, matching = generator_loss(generated), feature_matching_loss(real, generated)
                if config.adversarial_weighting == "adaptive":
                    fooling = adaptive_weight(faithful, fooling, autoencoder.last_weight) * fooling
                loss = loss + config.adversarial_weight * fooling + config.feature_matching_weight * matching
        descend(loss, autoencoder, optimizer, max_gradient_norm=config.max_gradient_norm)
        if is_adversarial:
            with autocast(bench.device, config.precision):
                judged = discriminator_loss(real, discriminators(reconstruction.detach(), slices.detach()))
            descend(judged, discriminators, judge, max_gradient_norm=config.max_gradient_norm)

    return step


def encoding(config: AutoencoderConfig, *, patch_voxels: int, batch_size: int, bench: Bench) -> Pass:
    """Build the encoding of patches by a trained autoencoder."""
    autoencoder = bench.place(build_autoencoder(config).requires_grad_(requires_grad=False).eval())
    image = torch.rand(batch_size, 1, patch_voxels, patch_voxels, patch_voxels, device=bench.device)

    @torch.no_grad()
    def encode() -> None:
        with autocast(bench.device, config.precision):
            autoencoder.encode(image)

    return encode


def decoding(config: AutoencoderConfig, *, patch_voxels: int, batch_size: int, bench: Bench) -> Pass:
    """Build the decoding of latents by a trained autoencoder."""
    autoencoder = bench.place(build_autoencoder(config).requires_grad_(requires_grad=False).eval())
    edge = patch_voxels // config.downsampling
    latent = torch.rand(batch_size, config.latent_channels, edge, edge, edge, device=bench.device)

    @torch.no_grad()
    def decode() -> None:
        with autocast(bench.device, config.precision):
            autoencoder.decode(latent)

    return decode


def diffusion_step(config: Config, *, patch_voxels: int, num_types: int, bench: Bench) -> Pass:
    """Build a training step of stage 2; see `diffusion.train`."""
    settings = config.diffusion
    denoiser = bench.place(_denoiser(config, patch_voxels, num_types)).train()
    bench.spare(denoiser, diffusion_network.BLOCKS)
    average = bench.place(_denoiser(config, patch_voxels, num_types).requires_grad_(requires_grad=False).eval())
    optimizer = bench.optimizer(denoiser)
    clean, conditioning = _latents(config, patch_voxels, settings.batch_size, bench.device)
    level = torch.zeros(settings.batch_size, dtype=torch.int64, device=bench.device)
    is_dropped = torch.zeros(settings.batch_size, dtype=torch.bool, device=bench.device)

    def step() -> None:
        noise = torch.randn_like(clean)
        noisy = denoiser.schedule.add_noise(clean, noise, level)
        with autocast(bench.device, settings.precision):
            predicted = denoiser(noisy, level, conditioning, is_dropped)
            loss = denoising_loss(
                predicted,
                denoiser.target(clean, noise, level),
                conditioning.lesion_mask,
                lesion_weight=settings.lesion_weight,
                kind=settings.loss,
            )
        descend(loss, denoiser, optimizer, max_gradient_norm=settings.max_gradient_norm)
        update_average(average, denoiser, decay=settings.ema_decay, step=0)

    return step


def difftumor_step(config: Config, *, patch_voxels: int, num_types: int, bench: Bench) -> Pass:
    """Build a training step of one of DiffTumor's models, which is one of stage 2 without a prompt."""
    latent = config.model_copy(update={"diffusion": config.difftumor.as_diffusion()})
    return diffusion_step(latent, patch_voxels=patch_voxels, num_types=num_types, bench=bench)


def denoising(config: Config, *, patch_voxels: int, batch_size: int, num_types: int, bench: Bench) -> Pass:
    """Build one pass of a trained denoiser, as sampling takes many of."""
    denoiser = bench.place(_denoiser(config, patch_voxels, num_types).requires_grad_(requires_grad=False).eval())
    noisy, conditioning = _latents(config, patch_voxels, batch_size, bench.device)
    level = torch.zeros(batch_size, dtype=torch.int64, device=bench.device)
    is_dropped = torch.zeros(batch_size, dtype=torch.bool, device=bench.device)

    @torch.no_grad()
    def denoise() -> None:
        with autocast(bench.device, config.diffusion.precision):
            denoiser(noisy, level, conditioning, is_dropped)

    return denoise


def segmentation_step(config: SegmentationConfig, *, patch_voxels: int, num_labels: int, bench: Bench) -> Pass:
    """Build a training step of stage 3; see `segmentation.train`."""
    network = bench.place(build_segmentation_network(config, num_labels)).train()
    bench.spare(network, segmentation_network.BLOCKS)
    best, optimizer = bench.place(build_segmentation_network(config, num_labels)), bench.optimizer(network)
    loss_of = SegmentationLoss(
        LabelClasses(range(num_labels)), lesion_labels=[], lesion_weight=config.lesion_weight
    ).to(bench.device)
    image = torch.rand(config.batch_size, 1, patch_voxels, patch_voxels, patch_voxels, device=bench.device)
    truth = torch.zeros_like(image, dtype=torch.int64)

    def step() -> nn.Module:
        with autocast(bench.device, config.precision):
            scores = network(image)
        descend(loss_of(scores, truth), network, optimizer, max_gradient_norm=1.0)
        return best  # kept as long as the step is: the best weights so far

    return step


def segmenting(
    config: SegmentationConfig, *, patch_voxels: int, num_labels: int, batch_size: int, bench: Bench
) -> Pass:
    """Build one pass of a trained segmentation network over some windows."""
    network = bench.place(build_segmentation_network(config, num_labels).requires_grad_(requires_grad=False).eval())
    windows = torch.rand(batch_size, 1, patch_voxels, patch_voxels, patch_voxels, device=bench.device)

    @torch.no_grad()
    def segment() -> None:
        with autocast(bench.device, config.precision):
            network(windows).float()

    return segment


def voxel_step(config: Config, *, patch_voxels: int, num_types: int, bench: Bench) -> Pass:
    """Build a training step of Med-DDPM; see `baselines.med_ddpm`."""
    settings = config.med_ddpm
    denoiser = bench.place(build_voxel_denoiser(settings, num_types=num_types)).train()
    bench.spare(denoiser, diffusion_network.BLOCKS)
    optimizer = bench.optimizer(denoiser)
    shape = (settings.batch_size, 1, patch_voxels, patch_voxels, patch_voxels)
    clean = torch.rand(shape, device=bench.device)
    labels = torch.zeros(settings.batch_size, num_types, *shape[2:], device=bench.device)
    level = torch.zeros(settings.batch_size, dtype=torch.int64, device=bench.device)

    def step() -> None:
        with autocast(bench.device, settings.precision):
            difference = denoiser(clean, level, labels) - clean
        descend(difference.abs().mean(), denoiser, optimizer, max_gradient_norm=settings.max_gradient_norm)

    return step


def _denoiser(config: Config, patch_voxels: int, num_types: int) -> Denoiser:
    return build_denoiser(
        config.diffusion,
        latent_channels=config.autoencoder.latent_channels,
        latent_voxels=patch_voxels // config.autoencoder.downsampling,
        num_types=num_types,
    )


def _latents(
    config: Config, patch_voxels: int, batch_size: int, device: torch.device
) -> tuple[torch.Tensor, Conditioning]:
    edge = patch_voxels // config.autoencoder.downsampling
    shape = (batch_size, config.autoencoder.latent_channels, edge, edge, edge)
    conditioning = Conditioning(
        surroundings=torch.rand(shape, device=device),
        lesion_mask=torch.zeros(batch_size, 1, edge, edge, edge, device=device),
        lesion_type=torch.zeros(batch_size, dtype=torch.int64, device=device),
    )
    return torch.rand(shape, device=device), conditioning
