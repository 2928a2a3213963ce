"""One pass of each stage's networks on made-up patches, built from its configuration: to be counted and timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from promptlesion.autoencoder import network as autoencoder_network
from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import build_discriminators
from promptlesion.autoencoder.loss import AutoencoderLosses
from promptlesion.autoencoder.perceptual import PerceptualLoss
from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.voxel_denoiser import VoxelDenoiser, build_voxel_denoiser
from promptlesion.config import Config
from promptlesion.diffusion import network as diffusion_network
from promptlesion.diffusion.conditioning import Conditioning, condition
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.diffusion.loss import NoisedBatch, noise_loss
from promptlesion.segmentation import network as segmentation_network
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss, score_loss
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.compiling import checkpoint_activations
from promptlesion.training.descent import frozen
from promptlesion.training.device import autocast, place
from promptlesion.training.loop import AVERAGE, MAX_GRADIENT_NORM, only_loss, take_step
from promptlesion.training.optimisation import Precision
from promptlesion.training.state import TrainState

Pass = Callable[[], object]
"""Runs the networks once, in training with the optimiser's step."""
Network = TypeVar("Network", bound=nn.Module)
_MILLIMETRE = (1.0, 1.0, 1.0)


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

    def patches(self, batch_size: int, edge: int, channels: int = 1) -> Tensor:
        """Return cubes of numbers."""
        return torch.rand(batch_size, channels, edge, edge, edge, device=self.device)

    def spare(self, network: nn.Module, blocks: tuple[type[nn.Module], ...]) -> None:
        """Checkpoint the activations of these blocks as training does, where asked for."""
        if self.is_checkpointed:
            checkpoint_activations(network, blocks=blocks)

    def state(self, trained: Mapping[str, nn.Module], **others: nn.Module) -> TrainState:
        """Return a training's state; where it is counted Adam has no moments, which are 8 bytes a parameter more."""
        optimizers: dict[str, Optimizer] = {
            name: SGD(network.parameters(), lr=0.0) if self.is_counted else Adam(network.parameters(), lr=1e-5)
            for name, network in trained.items()
        }
        return TrainState({**trained, **others}, optimizers)

    def inference(self, run: Pass, precision: Precision) -> Pass:
        """Return a pass of a trained network."""

        @torch.no_grad()
        def infer() -> None:
            with autocast(self.device, precision):
                run()

        return infer


def autoencoder_step(
    config: AutoencoderConfig,
    perceptual: PerceptualLoss | None,
    patch_voxels: int,
    bench: Bench,
    *,
    is_adversarial: bool,
) -> Pass:
    """Build a training step of stage 1; see `autoencoder.train`."""
    autoencoder = bench.place(build_autoencoder(config)).train()
    bench.spare(autoencoder, autoencoder_network.BLOCKS)
    discriminators = bench.place(build_discriminators(config))
    state = bench.state({"autoencoder": autoencoder, "discriminators": discriminators})
    losses = AutoencoderLosses(autoencoder, discriminators, perceptual, config, bench.device)
    autoencoder.quantizer.eval()  # its restarts depend on the data, and cost little
    image = bench.patches(config.batch_size, patch_voxels)
    batch = image, torch.zeros_like(image, dtype=torch.bool)
    positions = [[patch_voxels // 2] * config.slices_per_axis] * 3

    def step() -> None:
        found = losses(*batch, positions=positions, generator=None, is_quantized=True, is_adversarial=is_adversarial)
        take_step(state, found, max_gradient_norm=config.max_gradient_norm)

    return step


def encoding(config: AutoencoderConfig, patch_voxels: int, bench: Bench, *, batch_size: int) -> Pass:
    """Build the encoding of patches by a trained autoencoder."""
    autoencoder = bench.place(frozen(build_autoencoder(config)))
    image = bench.patches(batch_size, patch_voxels)
    return bench.inference(lambda: autoencoder.encode(image), config.precision)


def decoding(config: AutoencoderConfig, patch_voxels: int, bench: Bench, *, batch_size: int) -> Pass:
    """Build the decoding of latents by a trained autoencoder."""
    autoencoder = bench.place(frozen(build_autoencoder(config)))
    latent = bench.patches(batch_size, patch_voxels // config.downsampling, config.latent_channels)
    return bench.inference(lambda: autoencoder.decode(latent), config.precision)


def diffusion_step(config: Config, patch_voxels: int, bench: Bench, *, num_types: int) -> Pass:
    """Build a training step of stage 2; see `diffusion.train`."""
    settings = config.diffusion
    clean, level, *conditions = _latents(config, patch_voxels, settings.batch_size, bench)
    batch = NoisedBatch(clean, level, clean, tuple(conditions), lesion_mask=torch.zeros_like(clean[:, :1]))
    return _denoising_step(lambda: _denoiser(config, patch_voxels, num_types), batch, settings, bench)


def difftumor_step(config: Config, patch_voxels: int, bench: Bench, *, num_types: int) -> Pass:
    """Build a training step of one of DiffTumor's models, which is one of stage 2 without a prompt."""
    latent = config.model_copy(update={"diffusion": config.difftumor.as_diffusion()})
    return diffusion_step(latent, patch_voxels, bench, num_types=num_types)


def voxel_step(config: Config, patch_voxels: int, bench: Bench, *, num_types: int) -> Pass:
    """Build a training step of Med-DDPM; see `baselines.med_ddpm`."""
    settings = config.med_ddpm
    clean, labels = (bench.patches(settings.batch_size, patch_voxels, channels) for channels in (1, num_types))
    level = torch.zeros(settings.batch_size, dtype=torch.int64, device=bench.device)
    batch = NoisedBatch(clean, level, noise=clean, conditions=(labels,))
    return _denoising_step(lambda: build_voxel_denoiser(settings, num_types=num_types), batch, settings, bench)


def denoising(config: Config, patch_voxels: int, bench: Bench, *, batch_size: int, num_types: int) -> Pass:
    """Build one pass of a trained denoiser, as sampling takes many of."""
    denoiser = bench.place(frozen(_denoiser(config, patch_voxels, num_types)))
    inputs = _latents(config, patch_voxels, batch_size, bench)
    return bench.inference(lambda: denoiser(*inputs), config.diffusion.precision)


def segmentation_step(
    config: SegmentationConfig,
    patch_voxels: int,
    bench: Bench,
    *,
    num_labels: int,
    spacing_mm: tuple[float, float, float] = _MILLIMETRE,
) -> Pass:
    """Build a training step of stage 3; see `segmentation.train`."""
    network, best = (
        bench.place(build_segmentation_network(config, num_labels, spacing_mm=spacing_mm)) for _ in range(2)
    )
    state = bench.state({"segmentation": network}, best=best)
    bench.spare(network, segmentation_network.BLOCKS)
    loss_of = SegmentationLoss(
        LabelClasses(range(num_labels)), lesion_labels=[], lesion_weight=config.lesion_weight
    ).to(bench.device)
    image = bench.patches(config.batch_size, patch_voxels)
    truth = torch.zeros_like(image, dtype=torch.int64)

    def step() -> None:
        loss = score_loss(network, loss_of, image, truth, precision=config.precision)
        take_step(state, only_loss("segmentation", loss), max_gradient_norm=MAX_GRADIENT_NORM)

    return step


def segmenting(
    config: SegmentationConfig,
    patch_voxels: int,
    bench: Bench,
    *,
    num_labels: int,
    batch_size: int,
    spacing_mm: tuple[float, float, float] = _MILLIMETRE,
) -> Pass:
    """Build one pass of a trained segmentation network over some windows."""
    network = bench.place(frozen(build_segmentation_network(config, num_labels, spacing_mm=spacing_mm)))
    windows = bench.patches(batch_size, patch_voxels)
    return bench.inference(lambda: network(windows).float(), config.precision)


def _denoising_step(
    build: Callable[[], Denoiser | VoxelDenoiser],
    batch: NoisedBatch,
    settings: DiffusionConfig | MedDDPMConfig,
    bench: Bench,
) -> Pass:
    """Build a training step of a denoiser, of which the moving average is kept."""
    denoiser, average = (bench.place(build()) for _ in range(2))
    state = bench.state({"denoiser": denoiser}, **{AVERAGE: frozen(average)})
    bench.spare(denoiser, diffusion_network.BLOCKS)
    loss_of = partial(noise_loss, denoiser, kind=settings.loss, precision=settings.precision, device=bench.device)
    weight = settings.lesion_weight if isinstance(settings, DiffusionConfig) else 1.0

    def step() -> None:
        loss = loss_of(replace(batch, noise=torch.randn_like(batch.clean)), lesion_weight=weight)
        losses = only_loss("denoiser", loss)
        take_step(state, losses, max_gradient_norm=settings.max_gradient_norm, ema_decay=settings.ema_decay)

    return step


def _denoiser(config: Config, patch_voxels: int, num_types: int) -> Denoiser:
    return build_denoiser(
        config.diffusion,
        latent_channels=config.autoencoder.latent_channels,
        latent_voxels=patch_voxels // config.autoencoder.downsampling,
        num_types=num_types,
    )


def _latents(
    config: Config, patch_voxels: int, batch_size: int, bench: Bench
) -> tuple[Tensor, Tensor, Conditioning, Tensor]:
    """Return what a denoiser is called with: latents, their levels, conditioning, and that no prompt is dropped."""
    edge, channels = patch_voxels // config.autoencoder.downsampling, config.autoencoder.latent_channels
    mask = torch.zeros(batch_size, 1, *[patch_voxels] * 3, dtype=torch.bool, device=bench.device)
    level = torch.zeros(batch_size, dtype=torch.int64, device=bench.device)
    clean, surroundings = (bench.patches(batch_size, edge, channels) for _ in range(2))
    conditioning = condition(surroundings, mask, level, is_whole=config.diffusion.mask == "whole")
    return clean, level, conditioning, torch.zeros_like(level, dtype=torch.bool)
