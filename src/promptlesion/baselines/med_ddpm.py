"""Training of Med-DDPM (Dorjsembe et al., IEEE JBHI 2024): learn whole patches under noise, told their labels alone.

There is no autoencoder and no prompt, and the surroundings are not given: what lies around a lesion is made up.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.baselines.voxel_denoiser import NoisedPatches, VoxelDenoiser, build_voxel_denoiser, voxel_loss
from promptlesion.data.lesion_statistics import LesionStatistics, read_statistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.network import BLOCKS
from promptlesion.training.checkpoint import load_checkpoint
from promptlesion.training.device import place, send
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import averaged_stage, train
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import derive_seed, torch_generator

MED_DDPM = "med-ddpm"


def train_med_ddpm(data: TrainingData, *, config: MedDDPMConfig, options: RunOptions) -> Run:
    """Train on patches around the lesions of the training cases, or go on with an interrupted run."""
    share, seed, spec = share_of_batch(config.batch_size), options.seed, data.spec
    run = data.open_run(options, stage=MED_DDPM, config=config, inputs={"lesions": spec.model_dump_json()})
    if run.is_finished:
        return run
    device = run.device
    batches = LesionBatches(data.cases, spec=spec, patch_voxels=config.patch_voxels, seed=derive_seed(seed, MED_DDPM))
    torch.manual_seed(derive_seed(seed, MED_DDPM, "weights"))
    denoiser = place(build_voxel_denoiser(config, num_types=len(spec.lesions)), device)

    def draw(step: int) -> NoisedPatches:
        batch = batches.draw(step, share)
        level, noise = _draw_noise(batch.image.shape[1:], share, step, config, seed)
        return NoisedPatches(*(send(part, device) for part in (batch.image, batch.labels, level, noise)))

    def card() -> dict[str, object]:
        return {
            **run.facts(MED_DDPM),
            **data.facts(data.measure()),
            "schedule": "cosine",
            **denoiser.schedule.facts(),
        }

    stage = averaged_stage(
        "denoiser",
        denoiser,
        config,
        compiled=denoiser.network,
        blocks=BLOCKS,
        draw=draw,
        loss=lambda batch: voxel_loss(denoiser, batch, config, device=device),
        card=card,
    )
    train(run, stage, config, hardware=options.hardware)
    run.finish()
    return run


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
