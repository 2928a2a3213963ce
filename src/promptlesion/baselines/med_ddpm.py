"""Training of Med-DDPM (Dorjsembe et al., IEEE JBHI 2024): learn whole patches under noise, told their labels alone.

There is no autoencoder and no prompt, and the surroundings are not given: what lies around a lesion is made up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.baselines.run import open_run
from promptlesion.baselines.voxel_denoiser import VoxelDenoiser, build_voxel_denoiser
from promptlesion.data.cache import CachedCase
from promptlesion.data.lesion_statistics import LesionStatistics, measure_lesions, read_statistics, training_facts
from promptlesion.data.spec import DatasetSpec
from promptlesion.diffusion.network import BLOCKS
from promptlesion.training.checkpoint import load_checkpoint, save_checkpoint
from promptlesion.training.compiling import ready_to_train
from promptlesion.training.descent import build_adam, descend
from promptlesion.training.device import autocast, place, resolve_device, send
from promptlesion.training.ema import averaged_copy, update_average
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import share_of_batch
from promptlesion.training.learning_rate import set_learning_rate
from promptlesion.training.prefetch import prefetched
from promptlesion.training.run import Report, Run
from promptlesion.training.seeding import derive_seed, torch_generator
from promptlesion.training.state import TrainState

MED_DDPM = "med-ddpm"


def train_med_ddpm(
    *,
    train_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    labels: Mapping[str, int],
    config: MedDDPMConfig,
    out: Path,
    seed: int,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> Run:
    """Train on patches around the lesions of the training cases, or go on with an interrupted run.

    Args:
        train_cases: cases whose voxels the network sees.
        spec: window, spacing and lesion types of the dataset.
        labels: its labels, names to values, which tell a lesion's host.
        config: network and training.
        out: the run's folder.
        seed: of the weights and of every draw.
        device: `auto` or a device's name.
        hardware: how the machine is used; it changes results by rounding at most.

    Returns:
        The finished run.
    """
    torch_device, share = resolve_device(device), share_of_batch(config.batch_size)
    run = open_run(
        out, stage=MED_DDPM, train_cases=train_cases, spec=spec, config=config, seed=seed, device=torch_device
    )
    if run.is_finished:
        return run
    batches = LesionBatches(train_cases, spec=spec, patch_voxels=config.patch_voxels, seed=derive_seed(seed, MED_DDPM))
    torch.manual_seed(derive_seed(seed, MED_DDPM, "weights"))
    denoiser = place(build_voxel_denoiser(config, num_types=len(spec.lesions)), torch_device)
    state = TrainState(
        networks={"denoiser": denoiser, "average": averaged_copy(denoiser)},
        optimizers={"denoiser": build_adam(denoiser, learning_rate=config.learning_rate, betas=config.adam_betas)},
    )
    run.resume(state)
    reports = _steps(
        state,
        batches,
        share,
        config=config,
        seed=seed,
        device=torch_device,
        hardware=hardware,
    )
    run.train(state, reports, num_steps=config.num_steps, checkpoint_every_steps=config.checkpoint_every_steps)
    save_checkpoint(
        run.checkpoint_folder,
        card={
            "stage": MED_DDPM,
            "method": MED_DDPM,
            "schedule": "cosine",
            **denoiser.schedule.facts(),
            **training_facts(train_cases, spec, measure_lesions(train_cases, spec, labels)),
            "config": config.model_dump(mode="json"),
            "seed": seed,
        },
        parts={"denoiser": state.networks["average"].state_dict()},
    )
    run.finish()
    return run


def _steps(
    state: TrainState,
    batches: LesionBatches,
    share: range,
    *,
    config: MedDDPMConfig,
    seed: int,
    device: torch.device,
    hardware: HardwareConfig,
) -> Iterator[Report]:
    """Train step by step on this process's share of every batch, yielding the loss of each."""
    denoiser, average = state.networks["denoiser"], state.networks["average"]
    assert isinstance(denoiser, VoxelDenoiser)
    denoiser.train()

    def draw(step: int) -> tuple[Tensor, ...]:
        batch = batches.draw(step, share)
        level, noise = _draw_noise(batch.image.shape[1:], share, step, config, seed)
        return tuple(send(part, device) for part in (batch.image, batch.labels, level, noise))

    def loss_of(clean: Tensor, labels: Tensor, level: Tensor, noise: Tensor) -> Float[Tensor, ""]:
        noisy = denoiser.schedule.add_noise(clean, noise, level)
        with autocast(device, config.precision):
            difference = denoiser(noisy, level, labels) - denoiser.target(clean, noise, level)
        error: Tensor = difference.abs() if config.loss == "l1" else difference.square()
        return error.mean()

    ready_to_train(
        denoiser.network, hardware=hardware, device=device, blocks=BLOCKS, loss=lambda: loss_of(*draw(state.step))
    )
    steps = range(state.step, config.num_steps)
    for batch in prefetched(draw, steps, num_batches=hardware.prefetch_batches):
        loss = loss_of(*batch)
        optimizer = state.optimizers["denoiser"]
        set_learning_rate(
            optimizer,
            start=config.learning_rate,
            step=state.step,
            num_steps=config.num_steps,
            decay=config.learning_rate_decay,
        )
        descend(loss, denoiser, optimizer, max_gradient_norm=config.max_gradient_norm)
        update_average(average, denoiser, decay=config.ema_decay, step=state.step)
        state.step += 1
        yield {"loss": loss.detach()}


def _draw_noise(shape: torch.Size, items: range, step: int, config: MedDDPMConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Return level and noise of some items of a batch, each from its own generator."""
    generators = [torch_generator(seed, MED_DDPM, "noise", step, item) for item in items]
    level = torch.cat([torch.randint(config.num_levels, (1,), generator=generator) for generator in generators])
    return level, torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@dataclass(frozen=True)
class TrainedMedDDPM:
    """A finished Med-DDPM."""

    denoiser: VoxelDenoiser
    config: MedDDPMConfig
    spec: DatasetSpec
    statistics: LesionStatistics
    card: dict[str, object]


def load_med_ddpm(run_folder: Path, device: torch.device) -> TrainedMedDDPM:
    """Read a finished run, frozen.

    Raises:
        CheckpointError: the run is not finished, damaged, or of another stage.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage=MED_DDPM)
    statistics = read_statistics(checkpoint.card, source=run_folder)
    config = MedDDPMConfig.model_validate(checkpoint.card["config"])
    spec = DatasetSpec.model_validate(checkpoint.card["dataset"])
    denoiser = build_voxel_denoiser(config, num_types=len(spec.lesions))
    checkpoint.restore(denoiser, part="denoiser")
    place(denoiser.requires_grad_(requires_grad=False).eval(), device)
    return TrainedMedDDPM(denoiser, config, spec, statistics, checkpoint.card)
