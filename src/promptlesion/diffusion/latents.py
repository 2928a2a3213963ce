"""The training set of stage 2: lesion patches, encoded once by the frozen autoencoder and kept in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int16
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder
from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_attributes import AttributeRow, as_mapping, as_row, measure_attributes
from promptlesion.data.lesion_instances import LesionInstance, cut_instance
from promptlesion.data.lesion_patch import draw_lesion_patch
from promptlesion.data.lesion_statistics import lesion_row
from promptlesion.data.noise import NEIGHBOURHOOD_VOXELS, denoise
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.conditioning import Conditioning, blank_lesion, mask_on_latent_grid, unfolded_mask
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.training.atomic import written_whole
from promptlesion.training.device import autocast, send
from promptlesion.training.progress import progress_bar
from promptlesion.training.seeding import numpy_generator

_ENCODE_BATCH = 4
_BLUR_VOXELS = 0.8
"""Of a scanner, by which a lesion that is made brighter blooms as one that is."""


@dataclass(frozen=True)
class LesionLatents:
    """Encoded lesion patches; everything the denoiser trains on."""

    clean: Float[Tensor, "patch channel x y z"]
    surroundings: Float[Tensor, "patch channel x y z"]
    lesion_mask: Float[Tensor, "patch 1 x y z"]
    lesion_type: Int[Tensor, " patch"]
    attributes: Float[Tensor, "patch attribute"]
    """What each lesion is like, see `ATTRIBUTES`."""
    whole_mask: Bool[Tensor, "patch cell x y z"] | None = None
    """Every voxel of the mask, where the network is told them."""

    def __len__(self) -> int:
        """Return the number of patches."""
        return len(self.lesion_type)

    def batch(self, index: Sequence[int], device: torch.device) -> tuple[Tensor, Conditioning]:
        """Return the clean latents of some patches and their conditioning."""
        chosen = send(torch.tensor(list(index)), self.clean.device)
        conditioning = Conditioning(
            surroundings=send(self.surroundings[chosen], device).float(),
            lesion_mask=send(self.lesion_mask[chosen], device).float(),
            lesion_type=send(self.lesion_type[chosen], device),
            whole_mask=None if self.whole_mask is None else send(self.whole_mask[chosen], device).float(),
            attributes=send(self.attributes[chosen], device),
        )
        return send(self.clean[chosen], device).float(), conditioning

    def kept_on(self, device: torch.device) -> "LesionLatents":
        """Return them on a GPU, where they take no more than a quarter of its free memory; else as they are."""
        if device.type != "cuda":
            return self
        parts = self.parts()
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if sum(part.nbytes for part in parts.values()) > free_bytes // 4:
            return self
        return LesionLatents(**{name: part.to(device) for name, part in parts.items()})

    def parts(self) -> dict[str, Tensor]:
        """Return what there is by name."""
        return {f.name: part for f in fields(self) if (part := getattr(self, f.name)) is not None}


def encode_lesions(
    data: TrainingData,
    autoencoder: TrainedAutoencoder,
    config: DiffusionConfig,
    *,
    seed: int,
    path: Path,
    key: str,
    device: torch.device,
) -> LesionLatents:
    """Encode differently placed and mirrored patches around every lesion, or read what was encoded before.

    Args:
        path: the file that keeps the latents.
        key: identifies what the latents depend on; a file with another key is made anew.

    Raises:
        ValueError: no training case has a lesion.
    """
    if path.is_file() and _stored_key(path) == key:
        return LesionLatents(**load_file(path))
    lesions = [(case, index, lesion) for case in data.cases for index, lesion in enumerate(case.lesions)]
    if not lesions:
        raise ValueError(f"expected lesions in the {len(data.cases)} training cases; found none")
    spec, downsampling = data.spec, autoencoder.network.downsampling
    window, margin = HUWindow(*spec.window_hu), config.blank_margin_voxels
    spread_hu = [float(np.std(data.statistics.types[lesion.name].mean_hu or 0.0)) for lesion in spec.lesions]
    encoded: list[dict[str, Tensor]] = []
    with progress_bar("encoding lesions", len(lesions)) as bar:
        for done, (case, index, lesion) in enumerate(lesions, start=1):
            drawn = _Drawn(case, lesion, data, config, spread_hu[lesion.type_index])
            patches = [
                drawn.patch(numpy_generator(seed, case.name, index, variant))
                for variant in range(config.patches_per_lesion)
            ]
            for start in range(0, len(patches), _ENCODE_BATCH):
                images, masks, rows = zip(*patches[start : start + _ENCODE_BATCH], strict=True)
                image, mask = _normalized(images, window), torch.from_numpy(np.stack(masks))[:, None]
                blanked = blank_lesion(image, mask, margin_voxels=margin)  # all that was freed of noise goes
                parts = {
                    "clean": _encode(image, autoencoder, device).half(),
                    "surroundings": _encode(blanked, autoencoder, device).half(),
                    "lesion_mask": mask_on_latent_grid(mask, downsampling=downsampling).half(),
                    "lesion_type": torch.full((len(rows),), lesion.type_index),
                    "attributes": torch.from_numpy(np.stack(rows)).float(),
                }
                if config.mask == "whole":
                    parts["whole_mask"] = unfolded_mask(mask, downsampling=downsampling).bool()
                encoded.append(parts)
            bar.update(done)
    latents = LesionLatents(**{name: torch.cat([parts[name] for parts in encoded]).contiguous() for name in encoded[0]})
    with written_whole(path) as temporary:
        save_file(latents.parts(), temporary, metadata={"key": key})
    return latents


class _Drawn:
    """A lesion of which patches are drawn, each with what it is like there."""

    def __init__(
        self, case: CachedCase, lesion: LesionInstance, data: TrainingData, config: DiffusionConfig, spread_hu: float
    ) -> None:
        self._case, self._lesion, self._spec, self._config, self._spread_hu = case, lesion, data.spec, config, spread_hu
        self._image = np.asarray(case.image)
        if config.denoise_lesions:
            self._image = _without_noise(case, lesion, data.spec, margin_voxels=config.blank_margin_voxels)
        if config.attributes:
            self._row = lesion_row(case, lesion, data.spec, data.labels)
            self._learned_row = lesion_row(case, lesion, data.spec, data.labels, image=self._image)

    def patch(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, AttributeRow]:
        """Return the HU to learn, the mask, and the attributes, those of the scan as it is, with its noise."""
        config, spec = self._config, self._spec
        image, mask = draw_lesion_patch(
            self._case,
            self._lesion,
            spec,
            patch_voxels=config.patch_voxels,
            generator=generator,
            image=self._image,
            warp_probability=config.warp_probability,
        )
        if not config.attributes:
            return image, mask, as_row({})
        if config.brightness_jitter:
            low, high = spec.lesions[self._lesion.type_index].hu
            mean_hu = float(image[mask].mean())
            wanted = mean_hu + float(generator.normal(0.0, config.brightness_jitter * self._spread_hu))
            added = np.clip(wanted, min(low, mean_hu), max(high, mean_hu)) - mean_hu
            image = image + np.float32(added) * ndimage.gaussian_filter(mask.astype(np.float32), _BLUR_VOXELS)
        own = as_mapping(self._learned_row)
        contrast_hu = own["contrast_hu"] + float(image[mask].mean()) - own["mean_hu"]
        changed = measure_attributes(image, mask, spec.spacing_mm, contrast_hu=contrast_hu) - self._learned_row
        return image, mask, self._row + changed


def _without_noise(
    case: CachedCase, lesion: LesionInstance, spec: DatasetSpec, *, margin_voxels: int
) -> Int16[np.ndarray, "x y z"]:
    """Return the case's HU, with the lesion and a margin around it freed of noise."""
    label, reach = spec.lesions[lesion.type_index].label, margin_voxels + NEIGHBOURHOOD_VOXELS
    box, mask = cut_instance(case.labels, lesion, label, margin_voxels=(reach, reach, reach))
    region = ndimage.maximum_filter(mask, size=2 * margin_voxels + 1)
    image: np.ndarray = np.array(case.image)
    image[box] = np.rint(denoise(image[box], region, window=HUWindow(*spec.window_hu)))
    return image


def _normalized(images: Sequence[np.ndarray], window: HUWindow) -> Float[Tensor, "batch 1 x y z"]:
    return torch.from_numpy(window.normalize(np.stack(images).astype(np.float32)))[:, None]


@torch.no_grad()
def _encode(
    image: Float[Tensor, "batch 1 x y z"], autoencoder: TrainedAutoencoder, device: torch.device
) -> Float[Tensor, "batch channel u v w"]:
    with autocast(device, autoencoder.config.precision):
        latent: Tensor = autoencoder.network.encode(image.to(device)).cpu()
    return latent


def _stored_key(path: Path) -> str | None:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] | None = file.metadata()
    return (metadata or {}).get("key")
