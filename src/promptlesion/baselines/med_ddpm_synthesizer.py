"""Med-DDPM behind the interface all methods share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from promptlesion.baselines.med_ddpm import MED_DDPM, TrainedMedDDPM, load_med_ddpm
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.trained_on import TrainedOn
from promptlesion.data.volume import Volume
from promptlesion.diffusion.bound_network import cast_weights
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.sampler import NoiseSource, sample
from promptlesion.masks.placement import PlacedLesion
from promptlesion.prompt.encoders import masks_by_type
from promptlesion.synthesis.batch_size import lesions_at_once
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.patch_grid import patch_grid, pull_mask
from promptlesion.synthesis.synthesizer import SynthesizerCard, largest_in_patch_mm
from promptlesion.training.device import autocast, resolve_device, resolve_precision
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig

_LATENT_DOWNSAMPLING = 4
"""A network on voxels works as hard as one on the latents of a patch so many times as wide."""


@dataclass(frozen=True)
class MedDDPMSynthesizer:
    """Samples a whole patch from noise and the drawn lesion's labels; of the scan it sees nothing."""

    card: SynthesizerCard
    model: TrainedMedDDPM
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
                patch_voxels=self.model.config.patch_voxels,
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
        schedule = self.model.denoiser.schedule
        start, levels = noise.draw(), schedule.spaced_levels(self.config.num_steps)
        with autocast(self.card.device, self.model.config.precision):
            denoise = self.model.denoiser.bound(labels, levels, recorder=self.recorder)
            return sample(
                start,
                sampler=self.config.sampler,
                schedule=schedule,
                levels=levels,
                denoise=denoise,
                noise=noise,
            )


def load_med_ddpm_synthesizer(
    run_folder: Path,
    config: SynthesisConfig,
    *,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> MedDDPMSynthesizer:
    """Read a finished Med-DDPM run.

    Raises:
        ValueError: more sampling steps than the schedule has levels, or a setting the method has no use for.
    """
    torch_device = resolve_device(device)
    _check_settings(config)
    model = load_med_ddpm(run_folder, torch_device)
    model.denoiser.schedule.spaced_levels(config.num_steps)
    cast_weights(model.denoiser.network, resolve_precision(torch_device, model.config.precision))
    spec, patch_voxels = model.spec, model.config.patch_voxels
    card = SynthesizerCard(
        method=MED_DDPM,
        model_hash=str(model.card["weights_sha256"]),
        spec=spec,
        statistics=model.statistics,
        device=torch_device,
        edge_mm=model.config.edge_voxels * max(spec.spacing_mm),
        max_extent_mm=largest_in_patch_mm(patch_voxels, spec),
        finest_mm=sphere_diameter_mm(math.prod(spec.spacing_mm)),
        learned_from=TrainedOn.of_cards(model.card),
        batch_size=lesions_at_once(torch_device, patch_voxels=_LATENT_DOWNSAMPLING * patch_voxels),
    )
    return MedDDPMSynthesizer(card, model, config, StepRecorder(choice=hardware.compile, device=torch_device))


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
