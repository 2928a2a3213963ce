"""Med-DDPM (Dorjsembe et al., IEEE JBHI 2024): whole patches learned under noise, and sampled, told their labels alone.

There is no autoencoder and no prompt, and the surroundings are not given: what lies around a lesion is made up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.baselines.voxel_denoiser import VoxelDenoiser, build_voxel_denoiser
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.diffusion.bound_network import cast_weights
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.loss import NoisedBatch, noise_loss
from promptlesion.diffusion.network import BLOCKS
from promptlesion.diffusion.sampler import NoiseSource, sample
from promptlesion.masks.placement import PlacedLesion
from promptlesion.prompt.encoders import masks_by_type
from promptlesion.synthesis.batch_size import lesions_at_once
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.patch_grid import patch_grid, pull_mask
from promptlesion.synthesis.synthesizer import SynthesizerCard, facts_of_run, largest_in_patch_mm
from promptlesion.training.checkpoint import load_checkpoint
from promptlesion.training.device import autocast, place, resolve_device, resolve_precision, send
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import share_of_batch
from promptlesion.training.loop import averaged_stage, train
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import derive_seed, torch_generator

MED_DDPM = "med-ddpm"
_LATENT_DOWNSAMPLING = 4
"""A network on voxels works as hard as one on the latents of a patch so many times as wide."""


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

    def draw(step: int) -> NoisedBatch:
        batch = batches.draw(step, share)
        level, noise = _draw_noise(batch.image.shape[1:], share, step, config, seed)
        image, seen, level, noise = (send(part, device) for part in (batch.image, batch.labels, level, noise))
        return NoisedBatch(image, level, noise, conditions=(seen,))

    def card() -> dict[str, object]:
        return {**run.facts(MED_DDPM), **data.facts(data.statistics), "schedule": "cosine", **denoiser.schedule.facts()}

    stage = averaged_stage(
        "denoiser",
        denoiser,
        config,
        compiled=denoiser.network,
        blocks=BLOCKS,
        draw=draw,
        loss=partial(noise_loss, denoiser, kind=config.loss, precision=config.precision, device=device),
        card=card,
    )
    train(run, stage, config, hardware=options.hardware)
    run.finish()
    return run


def _draw_noise(shape: torch.Size, items: range, step: int, config: MedDDPMConfig, seed: int) -> tuple[Tensor, Tensor]:
    generators = [torch_generator(seed, MED_DDPM, "noise", step, item) for item in items]
    level = torch.cat([torch.randint(config.num_levels, (1,), generator=generator) for generator in generators])
    return level, torch.stack([torch.randn(shape, generator=generator) for generator in generators])


@dataclass(frozen=True)
class MedDDPMSynthesizer:
    """Samples a whole patch from noise and the drawn lesion's labels; of the scan it sees nothing."""

    card: SynthesizerCard
    denoiser: VoxelDenoiser
    settings: MedDDPMConfig
    config: SynthesisConfig
    recorder: StepRecorder | None = None
    """Turns the denoiser's step into a CUDA graph where that can be had."""

    @torch.no_grad()
    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`."""
        grids = [
            patch_grid(
                image,
                lesion.center_voxel,
                spacing_mm=self.card.spec.spacing_mm,
                patch_voxels=self.settings.patch_voxels,
            )
            for image, lesion in zip(images, lesions, strict=True)
        ]
        masks = np.stack([pull_mask(grid, lesion) for grid, lesion in zip(grids, lesions, strict=True)])
        labels = masks_by_type(
            torch.tensor(types),
            torch.from_numpy(masks.astype(np.float32))[:, None],
            num_types=len(self.card.spec.lesions),
        )
        patches = self._sample(labels.to(self.card.device), seeds).clamp(-1, 1)
        hu = HUWindow(*self.card.spec.window_hu).to_hu(patches[:, 0].cpu().numpy())
        return [grid.push(patch, lesion.box) for grid, lesion, patch in zip(grids, lesions, hu, strict=True)]

    def _sample(self, labels: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the patches, normalised."""
        noise = NoiseSource(seeds, (1, *labels.shape[2:]), self.card.device)
        schedule = self.denoiser.schedule
        start, levels = noise.draw(), schedule.spaced_levels(self.config.num_steps)
        with autocast(self.card.device, self.settings.precision):
            denoise = self.denoiser.bound(labels, levels, recorder=self.recorder)
            return sample(
                start, sampler=self.config.sampler, schedule=schedule, levels=levels, denoise=denoise, noise=noise
            )


def load_med_ddpm(
    run_folder: Path, config: SynthesisConfig, *, device: str = "auto", hardware: HardwareConfig = DEFAULT_HARDWARE
) -> MedDDPMSynthesizer:
    """Read a finished Med-DDPM run.

    Raises:
        CheckpointError: the run is not finished, damaged, or of another stage.
        ValueError: more sampling steps than the schedule has levels, or a setting the method has no use for.
    """
    torch_device = resolve_device(device)
    _check_settings(config)
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage=MED_DDPM)
    settings = MedDDPMConfig.model_validate(checkpoint.card["config"])
    facts = facts_of_run(checkpoint.card, method=MED_DDPM, source=run_folder)
    spec, patch_voxels = facts["spec"], settings.patch_voxels
    denoiser = build_voxel_denoiser(settings, num_types=len(spec.lesions))
    checkpoint.restore(denoiser, part="denoiser", device=torch_device)
    denoiser.schedule.spaced_levels(config.num_steps)
    cast_weights(denoiser.network, resolve_precision(torch_device, settings.precision))
    card = SynthesizerCard(
        **facts,
        device=torch_device,
        edge_mm=settings.edge_voxels * max(spec.spacing_mm),
        max_extent_mm=largest_in_patch_mm(patch_voxels, spec),
        finest_mm=sphere_diameter_mm(math.prod(spec.spacing_mm)),
        batch_size=lesions_at_once(torch_device, patch_voxels=_LATENT_DOWNSAMPLING * patch_voxels),
    )
    recorder = StepRecorder(choice=hardware.compile, device=torch_device)
    return MedDDPMSynthesizer(card, denoiser, settings, config, recorder)


def _check_settings(config: SynthesisConfig) -> None:
    """Refuse settings without effect: of the scan and of a prompt the method knows nothing."""
    expected: dict[str, object] = {
        "init": "noise",
        "reinject_background": False,
        "guidance_scale": 1.0,
        "keep_noise": False,
    }
    wrong = [
        f"synthesis.{name}={str(value).lower()} (found {getattr(config, name)})"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if wrong:
        raise ValueError(
            "Med-DDPM starts from noise, sees no surroundings, has no prompt and no autoencoder: expected "
            + ", ".join(wrong)
        )
