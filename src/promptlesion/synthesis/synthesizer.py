"""The interface all methods share, and PromptLesion behind it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from torch import Tensor

from promptlesion.data.crops import crop
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.diffusion.conditioning import Conditioning, blank_lesion, dilate, mask_on_latent_grid
from promptlesion.diffusion.sampler import (
    Denoise,
    NoiseSource,
    Reinject,
    sample_ancestral,
    sample_ddim,
    sample_dpm_solver,
)
from promptlesion.diffusion.schedule import Estimate
from promptlesion.diffusion.train import TrainedDiffusion, load_diffusion
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.patch_grid import PatchGrid, patch_grid, pull_image, pull_mask
from promptlesion.synthesis.placement import PlacedLesion
from promptlesion.synthesis.shape_bank import ShapeBank
from promptlesion.synthesis.texture import draw_noise, lost_noise
from promptlesion.training.device import autocast, resolve_device
from promptlesion.training.seeding import numpy_generator

_NOISE_MARGIN_VOXELS = 4
"""Around a lesion, so that a tiny one too has enough voxels to tell how strong the noise is."""


@runtime_checkable
class Synthesizer(Protocol):
    """Paints lesions of asked-for types into a scan at given masks."""

    @property
    def method(self) -> str:
        """Name of the method, for the provenance."""
        ...

    @property
    def model_hash(self) -> str:
        """SHA-256 of the trained weights."""
        ...

    @property
    def spec(self) -> DatasetSpec:
        """Window, spacing and lesion types the method was trained with."""
        ...

    @property
    def statistics(self) -> LesionStatistics:
        """What the training lesions of each type are like; sizes and numbers are drawn from it."""
        ...

    @property
    def device(self) -> torch.device:
        """What it computes on."""
        ...

    @property
    def edge_mm(self) -> float:
        """Width of the blended edge; nothing farther from a lesion changes."""
        ...

    @property
    def max_extent_mm(self) -> float:
        """The largest lesion it can paint, along an axis."""
        ...

    @property
    def finest_mm(self) -> float:
        """Diameter of the sphere that has the volume of the smallest cell it paints with, say a latent voxel."""
        ...

    @property
    def own_lesions(self) -> Mapping[str, ShapeBank]:
        """Whole lesions by type name that it pastes, so that masks are to be theirs; empty where any mask will do."""
        ...

    def paint(
        self, image: Volume, lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box as the method paints it; the scan is not changed.

        Args:
            image: the scan.
            lesions: masks and where they lie.
            types: the lesion type to paint into each mask, in prompt order; usually the mask's own.
            seeds: of each lesion; an equal seed gives equal voxels.
        """
        ...


@dataclass(frozen=True)
class PromptLesionSynthesizer:
    """Encodes a patch around each lesion, samples its latent under the prompt, and decodes it."""

    model: TrainedDiffusion
    config: SynthesisConfig
    device: torch.device
    method: str = "promptlesion"
    own_lesions: Mapping[str, ShapeBank] = field(default_factory=dict)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the denoiser's weights."""
        return str(self.model.card["weights_sha256"])

    @property
    def spec(self) -> DatasetSpec:
        """Window, spacing and lesion types the model was trained with."""
        return self.model.spec

    @property
    def statistics(self) -> LesionStatistics:
        """What the training lesions of each type are like."""
        return self.model.statistics

    @property
    def edge_mm(self) -> float:
        """Width of the blended edge: the margin the model repaints around a lesion, and one voxel more."""
        return (self.model.config.blank_margin_voxels + 1) * max(self.spec.spacing_mm)

    @property
    def max_extent_mm(self) -> float:
        """Largest lesion along an axis: the patch less an eighth of it on either side."""
        return 0.75 * self.model.config.patch_voxels * min(self.spec.spacing_mm)

    @property
    def finest_mm(self) -> float:
        """Diameter of the sphere that has the volume of a latent voxel."""
        return sphere_diameter_mm(math.prod(self.spec.spacing_mm) * self.model.autoencoder.network.downsampling**3)

    @torch.no_grad()
    def paint(
        self, image: Volume, lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`."""
        window = HUWindow(*self.spec.window_hu)
        patch_voxels = self.model.config.patch_voxels
        grids = [
            patch_grid(image, lesion.center_voxel, spacing_mm=self.spec.spacing_mm, patch_voxels=patch_voxels)
            for lesion in lesions
        ]
        patches = np.stack([window.normalize(pull_image(grid, image)) for grid in grids])
        masks = np.stack([pull_mask(grid, lesion) for grid, lesion in zip(grids, lesions, strict=True)])
        images = torch.from_numpy(patches)[:, None].to(self.device)
        with autocast(self.device, self.model.config.precision):
            healthy = self.model.autoencoder.network.encode(images)
        decoded = self._sample(
            images,
            healthy,
            torch.from_numpy(masks)[:, None].to(self.device),
            torch.tensor(types, device=self.device),
            seeds,
        )
        decoded_hu = window.to_hu(decoded[:, 0].cpu().numpy())
        noise_hu = self._noise(image, lesions, grids, healthy, seeds) if self.config.keep_noise else None
        painted = []
        for index, (grid, lesion) in enumerate(zip(grids, lesions, strict=True)):
            box_hu = grid.push(decoded_hu[index], lesion.box)
            scan = image.array[lesion.box].astype(np.float32)
            shown = scan.clip(window.low, window.high)
            if noise_hu is not None:
                box_hu += noise_hu[index]
            # what the window cuts off beside the lesion (lung, say) is not the lesion's to change
            painted.append(box_hu + np.where(lesion.mask, np.float32(0), scan - shown))
        return painted

    def _noise(
        self,
        image: Volume,
        lesions: Sequence[PlacedLesion],
        grids: Sequence[PatchGrid],
        healthy: Float[Tensor, "batch channel x y z"],
        seeds: Sequence[int],
    ) -> list[Float32[np.ndarray, "_ _ _"]]:
        """Return noise for every lesion's box like that which the autoencoder drops of the scan there."""
        window, network = HUWindow(*self.spec.window_hu), self.model.autoencoder.network
        with autocast(self.device, self.model.config.precision):
            kept_hu = window.to_hu(network.decode(healthy)[:, 0].float().cpu().numpy())
        found = []
        for lesion, grid, kept, seed in zip(lesions, grids, kept_hu, seeds, strict=True):
            covered = grid.footprint(image.shape)
            scan = image.array[covered].astype(np.float32).clip(window.low, window.high)
            lost = lost_noise(scan, grid.push(kept, covered), sigma_voxels=grid.step_voxels)
            x, y, z = (a.start - b.start for a, b in zip(lesion.box, covered, strict=True))
            occupied = ndimage.find_objects(lesion.mask.astype(np.uint8))[0]
            i, j, k = (
                slice(max(0, first + side.start - _NOISE_MARGIN_VOXELS), first + side.stop + _NOISE_MARGIN_VOXELS)
                for first, side in zip((x, y, z), occupied, strict=True)
            )
            noise = draw_noise(lost, (i, j, k), generator=numpy_generator(seed, "noise"))
            found.append(crop(noise, (x, y, z), lesion.mask.shape, fill=0))
        return found

    def _sample(
        self, image: Tensor, healthy: Tensor, mask: Tensor, lesion_type: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Return the decoded patches, normalised."""
        network, denoiser = self.model.autoencoder.network, self.model.denoiser
        margin_voxels = self.model.config.blank_margin_voxels
        with autocast(self.device, self.model.config.precision):
            surroundings = network.encode(blank_lesion(image, mask, margin_voxels=margin_voxels))
            conditioning = Conditioning(
                surroundings=surroundings,
                lesion_mask=mask_on_latent_grid(mask, downsampling=network.downsampling),
                lesion_type=lesion_type,
            )
            noise = NoiseSource(seeds, tuple(surroundings.shape[1:]), self.device)
            levels = denoiser.schedule.spaced_levels(self.config.num_steps)
            start = noise.draw()
            reinject = None
            if self.config.init == "healthy":
                first = torch.full((len(image),), levels[0], device=self.device)
                start = denoiser.schedule.add_noise(healthy, start, first)
            if self.config.reinject_background:
                region = dilate(mask, margin_voxels=margin_voxels)
                is_painted = mask_on_latent_grid(region, downsampling=network.downsampling) > 0
                reinject = _background(healthy, is_painted, noise)
            latent = self._walk(start, levels, noise, self._denoise(conditioning), reinject)
            return network.decode(latent)

    def _denoise(self, conditioning: Conditioning) -> Denoise:
        def denoise(noisy: Tensor, level: int) -> Estimate:
            return self.model.denoiser.estimate(noisy, level, conditioning, guidance_scale=self.config.guidance_scale)

        return denoise

    def _walk(
        self, start: Tensor, levels: list[int], noise: NoiseSource, denoise: Denoise, reinject: Reinject | None
    ) -> Tensor:
        schedule = self.model.denoiser.schedule
        if self.config.sampler == "ancestral":
            return sample_ancestral(
                start, schedule=schedule, levels=levels, denoise=denoise, noise=noise, reinject=reinject
            )
        sample = sample_ddim if self.config.sampler == "ddim" else sample_dpm_solver
        return sample(start, schedule=schedule, levels=levels, denoise=denoise, reinject=reinject)


def _background(
    healthy: Float[Tensor, "batch channel x y z"], is_painted: Bool[Tensor, "batch 1 x y z"], noise: NoiseSource
) -> Reinject:
    """Return what puts the healthy latent, noised alike, where nothing is to be painted.

    Equation 8 of RePaint (Lugmayr et al. 2022), without its jumps back to noisier levels.
    """

    def reinject(latent: Tensor, alpha_bar: float) -> Tensor:
        known = healthy
        if alpha_bar < 1:
            known = alpha_bar**0.5 * healthy + (1 - alpha_bar) ** 0.5 * noise.draw()
        return torch.where(is_painted, latent, known)

    return reinject


def load_synthesizer(run_folder: Path, config: SynthesisConfig, *, device: str = "auto") -> PromptLesionSynthesizer:
    """Read a finished diffusion run and the autoencoder it names.

    Raises:
        ValueError: more sampling steps than the model's schedule has levels, or guidance of a model without prompt.
    """
    torch_device = resolve_device(device)
    model = load_diffusion(run_folder, torch_device)
    model.denoiser.schedule.spaced_levels(config.num_steps)
    if model.denoiser.prompt_encoder is None and config.guidance_scale != 1.0:
        raise ValueError(
            f"{run_folder}: expected guidance_scale 1, as the model has no prompt to be guided by; "
            f"found {config.guidance_scale:g}. --set synthesis.guidance_scale=1"
        )
    return PromptLesionSynthesizer(model, config, torch_device)
