"""The interface all methods share, and PromptLesion behind it."""

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from scipy import ndimage
from torch import Tensor

from promptlesion.data.boxes import Box
from promptlesion.data.crops import crop
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_attributes import as_row, stacked
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.lesion_statistics import LesionStatistics, read_statistics
from promptlesion.data.noise import blur_mm, robust_sigma
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.trained_on import TrainedOn
from promptlesion.data.volume import Volume
from promptlesion.diffusion.bound_network import cast_weights
from promptlesion.diffusion.conditioning import blank_lesion, condition, dilate, mask_on_latent_grid
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.sampler import NoiseSource, Reinject, sample
from promptlesion.diffusion.schedule import CLEAN, Pair
from promptlesion.diffusion.train import TrainedDiffusion, load_diffusion
from promptlesion.masks.placement import PlacedLesion
from promptlesion.masks.shape_bank import ShapeBank
from promptlesion.synthesis.batch_size import lesions_at_once
from promptlesion.synthesis.blend import edge_weight
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.moments import match_moments, shifted_to
from promptlesion.synthesis.patch_grid import PatchGrid, patch_grid, pull_image, pull_mask
from promptlesion.synthesis.scan_noise import draw_noise, fine_part, lost_noise
from promptlesion.training.device import autocast, resolve_device, resolve_precision, send
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.seeding import numpy_generator

_BLURS = 3.0
"""Width of the soft edge in deviations of the scan's blur: beyond it nothing of the lesion is left."""
_NOISE_MARGIN_VOXELS = 4
"""Around a lesion, so that a tiny one too has enough voxels to tell how strong the noise is."""
_BATCHES_REMEMBERED, _LOOKS_REMEMBERED = 4, 16
"""So many lesions may be painted until one that was refused is painted again; each takes some megabytes."""


@dataclass(frozen=True)
class SynthesizerCard:
    """What a trained method is, and what it can paint."""

    method: str
    """Its name, for the provenance."""
    model_hash: str
    """SHA-256 of the trained weights."""
    spec: DatasetSpec
    """Window, spacing and lesion types it was trained with."""
    statistics: LesionStatistics
    """What the training lesions of each type are like; sizes and numbers are drawn from it."""
    device: torch.device
    """What it computes on."""
    edge_mm: float
    """Width of the blended edge; nothing farther from a lesion changes."""
    max_extent_mm: float
    """The largest lesion it can paint, along an axis."""
    finest_mm: float
    """Diameter of the sphere that has the volume of the smallest cell it paints with, say a latent voxel."""
    learned_from: TrainedOn = field(default_factory=TrainedOn)
    """Whom it, and the autoencoder beneath it, were trained on; nobody where the model does not say."""
    own_lesions: Mapping[str, ShapeBank] = field(default_factory=dict)
    """Whole lesions by type name that it pastes, so that masks are to be theirs; empty where any mask will do."""
    knows_attributes: bool = False
    """Whether what a lesion is asked to be like, `PlacedLesion.asked`, is painted so."""
    batch_size: int = 1
    """How many lesions it paints together where there are so many; they may lie in different scans."""


def facts_of_run(card: Mapping[str, Any], *beneath: Mapping[str, Any], method: str, source: Path) -> dict[str, Any]:
    """Return the first fields of a `SynthesizerCard`, which are in the card of any method's run.

    Args:
        card: of the run.
        beneath: cards of what the method was built on, the autoencoder say.
        method: its name.
        source: the run, for messages.

    Raises:
        CheckpointError: an older version wrote the card, or it is damaged.
    """
    return {
        "method": method,
        "model_hash": str(card["weights_sha256"]),
        "spec": DatasetSpec.model_validate(card["dataset"]),
        "statistics": read_statistics(card, source=source),
        "learned_from": TrainedOn.of_cards(card, *beneath),
    }


@runtime_checkable
class Synthesizer(Protocol):
    """Paints lesions of asked-for types into a scan at given masks."""

    @property
    def card(self) -> SynthesizerCard:
        """What it is, and what it can paint."""
        ...

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box as the method paints it; the scans are not changed.

        Args:
            images: the scan of each lesion; often the same one for several.
            lesions: masks and where they lie.
            types: the lesion type to paint into each mask, in prompt order; usually the mask's own.
            seeds: of each lesion; an equal seed gives equal voxels.
        """
        ...


@dataclass(frozen=True)
class _Look:
    """What the autoencoder makes of the patch around a lesion: the same at every attempt and for every type."""

    healthy: Float[Tensor, "channel u v w"]
    surroundings: Float[Tensor, "channel u v w"]
    """The patch with the lesion and a margin blanked."""
    lost_noise: Float32[np.ndarray, "x y z"] | None
    """What is lost of the scan where the patch covers it; nothing where the noise is not to be kept."""


class _Looks(threading.local):
    """What one thread looked at lately: were it shared, what is forgotten would depend on which thread is faster."""

    def __init__(self) -> None:
        self.kept: dict[bytes, _Look] = {}
        """By the hash of patch and mask, the latest last."""


@dataclass(frozen=True)
class PromptLesionSynthesizer:
    """Encodes a patch around each lesion, samples its latent under the prompt, and decodes it."""

    card: SynthesizerCard
    model: TrainedDiffusion
    config: SynthesisConfig
    recorder: StepRecorder | None = None
    """Turns the denoiser's step into a CUDA graph where that can be had."""
    _looks: _Looks = field(init=False, default_factory=_Looks, repr=False, compare=False)

    @torch.no_grad()
    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`."""
        window = HUWindow(*self.card.spec.window_hu)
        patch_voxels = self.model.config.patch_voxels
        grids = [
            patch_grid(image, lesion.center_voxel, spacing_mm=self.card.spec.spacing_mm, patch_voxels=patch_voxels)
            for image, lesion in zip(images, lesions, strict=True)
        ]
        patches = [pull_image(grid, image) for grid, image in zip(grids, images, strict=True)]
        masks = [pull_mask(grid, lesion) for grid, lesion in zip(grids, lesions, strict=True)]
        looks = self._look(images, grids, patches, masks)
        decoded = self._sample(
            torch.stack([look.healthy for look in looks]),
            torch.stack([look.surroundings for look in looks]),
            send(torch.from_numpy(np.stack(masks))[:, None], self.card.device),
            send(torch.tensor(types), self.card.device),
            send(torch.from_numpy(stacked([as_row(lesion.asked) for lesion in lesions])).float(), self.card.device),
            seeds,
        )
        painted = []
        for image, lesion, grid, mask, look, patch_hu, seed in zip(
            images, lesions, grids, masks, looks, window.to_hu(decoded[:, 0].cpu().numpy()), seeds, strict=True
        ):
            scan = image.array[lesion.box].astype(np.float32)
            shown = scan.clip(window.low, window.high)
            asked, noise = lesion.asked if self.config.match_moments else {}, np.zeros_like(scan)
            if look.lost_noise is not None:
                fine = fine_part(grid.push(patch_hu, lesion.box), sigma_voxels=grid.step_voxels)[lesion.mask]
                present_hu = 0.0 if asked else robust_sigma(fine)  # else it is seen to there
                noise = _noise(look.lost_noise, lesion, grid.footprint(image.shape), seed, present_hu)
            if asked:
                start = tuple(side.start for side in lesion.box)
                pulled = grid.pull(noise, start=start, order=1, fill=0)
                spacing_mm = self.card.spec.spacing_mm
                patch_hu, share = match_moments(patch_hu, pulled, mask, asked, spacing_mm=spacing_mm)
                noise *= np.float32(share)
            box_hu = grid.push(patch_hu, lesion.box) + noise
            if "mean_hu" in asked:
                box_hu = shifted_to(box_hu, lesion.mask, asked["mean_hu"])
            if self.config.edge == "blur":
                covered = grid.footprint(image.shape)
                edges_mm = [_BLURS * blur for blur in blur_mm(image.array[covered], image.spacing_mm)]
                x, y, z = (side / edge for side, edge in zip(image.spacing_mm, edges_mm, strict=True))
                box_hu = shown + edge_weight(lesion.mask, spacing_mm=(x, y, z), edge_mm=1.0) * (box_hu - shown)
            # what the window cuts off beside the lesion (lung, say) is not the lesion's to change
            painted.append((box_hu + np.where(lesion.mask, np.float32(0), scan - shown)).astype(np.float32))
        return painted

    def _look(
        self,
        images: Sequence[Volume],
        grids: Sequence[PatchGrid],
        patches: Sequence[Float32[np.ndarray, "i j k"]],
        masks: Sequence[Bool[np.ndarray, "i j k"]],
    ) -> list[_Look]:
        """Return what the autoencoder makes of every patch, those that were looked at lately from memory."""
        window, network = HUWindow(*self.card.spec.window_hu), self.model.autoencoder.network
        keys = [
            hashlib.sha256(patch.tobytes() + mask.tobytes()).digest()
            for patch, mask in zip(patches, masks, strict=True)
        ]
        known = self._looks.kept
        new = [index for index, key in enumerate(keys) if key not in known and keys.index(key) == index]
        if new:
            hu = window.normalize(np.stack([patches[i] for i in new]))
            shown = send(torch.from_numpy(hu)[:, None], self.card.device)
            mask = send(torch.from_numpy(np.stack([masks[i] for i in new]))[:, None], self.card.device)
            blanked = blank_lesion(shown, mask, margin_voxels=self.model.config.blank_margin_voxels)
            with autocast(self.card.device, self.model.config.precision):
                healthy, surroundings = network.encode(torch.cat([shown, blanked])).chunk(2)
                kept = network.decode(healthy)[:, 0].float().cpu().numpy() if self.config.keep_noise else None
            for number, index in enumerate(new):
                lost = None
                if kept is not None:
                    grid, covered = grids[index], grids[index].footprint(images[index].shape)
                    scan = images[index].array[covered].astype(np.float32).clip(window.low, window.high)
                    pushed = grid.push(window.to_hu(kept[number]), covered)
                    lost = lost_noise(scan, pushed, sigma_voxels=grid.step_voxels)
                known[keys[index]] = _Look(healthy[number].clone(), surroundings[number].clone(), lost)
        looks = [known[key] for key in keys]
        for key in list(known)[: -_BATCHES_REMEMBERED * self.card.batch_size - _LOOKS_REMEMBERED]:
            del known[key]
        return looks

    def _sample(
        self,
        healthy: Float[Tensor, "batch channel u v w"],
        surroundings: Float[Tensor, "batch channel u v w"],
        mask: Bool[Tensor, "batch 1 x y z"],
        lesion_type: Int[Tensor, " batch"],
        attributes: Float[Tensor, "batch attribute"],
        seeds: Sequence[int],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Return the decoded patches, normalised."""
        network, denoiser = self.model.autoencoder.network, self.model.denoiser
        is_whole = self.model.config.mask == "whole"
        with autocast(self.card.device, self.model.config.precision):
            conditioning = condition(surroundings, mask, lesion_type, is_whole=is_whole, attributes=attributes)
            noise = NoiseSource(seeds, tuple(surroundings.shape[1:]), self.card.device)
            levels = denoiser.schedule.spaced_levels(self.config.num_steps)
            start = noise.draw()
            reinject = None
            if self.config.init == "healthy":
                first = torch.full((len(healthy),), levels[0], device=self.card.device)
                start = denoiser.schedule.add_noise(healthy, start, first)
            if self.config.reinject_background:
                region = dilate(mask, margin_voxels=self.model.config.blank_margin_voxels)
                is_painted = mask_on_latent_grid(region, downsampling=network.downsampling) > 0
                reinject = _background(healthy, is_painted, noise)
            scale = self.config.guidance_scale
            denoise = denoiser.bound(conditioning, levels, guidance_scale=scale, recorder=self.recorder)
            latent = sample(
                start,
                sampler=self.config.sampler,
                schedule=denoiser.schedule,
                levels=levels,
                denoise=denoise,
                noise=noise,
                reinject=reinject,
            )
            return network.decode(latent)


def _noise(
    lost: Float32[np.ndarray, "_ _ _"], lesion: PlacedLesion, covered: Box, seed: int, present_hu: float
) -> Float32[np.ndarray, "_ _ _"]:
    """Return noise for a lesion's box like that which the autoencoder drops of the scan there.

    Args:
        present_hu: standard deviation of what varies as finely in the painted lesion: an autoencoder adds its own.
    """
    x, y, z = (a.start - b.start for a, b in zip(lesion.box, covered, strict=True))
    occupied = ndimage.find_objects(lesion.mask.astype(np.uint8))[0]
    i, j, k = (
        slice(max(0, first + side.start - _NOISE_MARGIN_VOXELS), first + side.stop + _NOISE_MARGIN_VOXELS)
        for first, side in zip((x, y, z), occupied, strict=True)
    )
    noise = draw_noise(lost, (i, j, k), generator=numpy_generator(seed, "noise"), present_hu=present_hu)
    return crop(noise, (x, y, z), lesion.mask.shape, fill=0)


def _background(
    healthy: Float[Tensor, "batch channel x y z"], is_painted: Bool[Tensor, "batch 1 x y z"], noise: NoiseSource
) -> Reinject:
    """Return what puts the healthy latent, noised alike, where nothing is to be painted.

    Equation 8 of RePaint (Lugmayr et al. 2022), without its jumps back to noisier levels.
    """

    def reinject(latent: Tensor, pair: Pair) -> Tensor:
        known = healthy
        if pair != CLEAN:
            known = pair.signal * healthy + pair.noise * noise.draw()
        return torch.where(is_painted, latent, known)

    return reinject


def load_synthesizer(
    run_folder: Path,
    config: SynthesisConfig,
    *,
    device: str = "auto",
    hardware: HardwareConfig = DEFAULT_HARDWARE,
) -> PromptLesionSynthesizer:
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
            f"found {config.guidance_scale}. --set synthesis.guidance_scale=1"
        )
    cast_weights(model.denoiser.network, resolve_precision(torch_device, model.config.precision))
    spec, patch_voxels = model.spec, model.config.patch_voxels
    card = SynthesizerCard(
        **facts_of_run(model.card, model.autoencoder.card, method="promptlesion", source=run_folder),
        device=torch_device,
        # the margin the model repaints around a lesion, and one voxel more
        edge_mm=(model.config.blank_margin_voxels + 1) * max(spec.spacing_mm),
        max_extent_mm=largest_in_patch_mm(patch_voxels, spec),
        finest_mm=sphere_diameter_mm(math.prod(spec.spacing_mm) * model.autoencoder.network.downsampling**3),
        knows_attributes=model.config.attributes,
        batch_size=lesions_at_once(torch_device, patch_voxels=patch_voxels),
    )
    return PromptLesionSynthesizer(
        card, model, config, recorder=StepRecorder(choice=hardware.compile, device=torch_device)
    )


def largest_in_patch_mm(patch_voxels: int, spec: DatasetSpec) -> float:
    """Return the largest lesion along an axis that a patch is for: the patch less an eighth of it on either side."""
    return 0.75 * patch_voxels * min(spec.spacing_mm)
