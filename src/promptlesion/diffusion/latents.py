"""The training set of stage 2: lesion patches, encoded once by the frozen autoencoder and kept in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int16
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor

from promptlesion.autoencoder.autoencoder import TrainedAutoencoder
from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_instances import LesionInstance, cut_instance
from promptlesion.data.lesion_patch import draw_lesion_patch
from promptlesion.data.noise import NEIGHBOURHOOD_VOXELS, denoise
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.diffusion.conditioning import Conditioning, blank_lesion, mask_on_latent_grid
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.training.atomic import written_whole
from promptlesion.training.device import autocast, send
from promptlesion.training.progress import progress_bar
from promptlesion.training.seeding import numpy_generator

_ENCODE_BATCH = 4


@dataclass(frozen=True)
class LesionLatents:
    """Encoded lesion patches; everything the denoiser trains on."""

    clean: Float[Tensor, "patch channel x y z"]
    surroundings: Float[Tensor, "patch channel x y z"]
    lesion_mask: Float[Tensor, "patch 1 x y z"]
    lesion_type: Int[Tensor, " patch"]

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
        )
        return send(self.clean[chosen], device).float(), conditioning

    def kept_on(self, device: torch.device) -> "LesionLatents":
        """Return them on a GPU, where they take no more than a quarter of its free memory; else as they are."""
        if device.type != "cuda":
            return self
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        free_bytes, _ = torch.cuda.mem_get_info(device)
        if sum(part.nbytes for part in parts.values()) > free_bytes // 4:
            return self
        return LesionLatents(**{name: part.to(device) for name, part in parts.items()})


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
        data: the training cases.
        autoencoder: stage 1.
        config: which patches, and what of them is blanked or freed of noise.
        seed: of the places and mirrorings.
        path: the file that keeps the latents.
        key: identifies what the latents depend on; a file with another key is made anew.
        device: to encode on.

    Raises:
        ValueError: no training case has a lesion.
    """
    if path.is_file() and _stored_key(path) == key:
        return LesionLatents(**load_file(path))
    lesions = [(case, index, lesion) for case in data.cases for index, lesion in enumerate(case.lesions)]
    if not lesions:
        raise ValueError(f"expected lesions in the {len(data.cases)} training cases; found none")
    spec, window, blank_margin_voxels = data.spec, HUWindow(*data.spec.window_hu), config.blank_margin_voxels
    encoded: list[tuple[Tensor, Tensor, Tensor]] = []
    types: list[int] = []
    with progress_bar("encoding lesions", len(lesions)) as bar:
        for done, (case, index, lesion) in enumerate(lesions, start=1):
            draw = partial(draw_lesion_patch, case, lesion, spec, patch_voxels=config.patch_voxels)
            seeds = [(seed, case.name, index, variant) for variant in range(config.patches_per_lesion)]
            patches = [draw(generator=numpy_generator(*own)) for own in seeds]
            learned = [image for image, _ in patches]
            if config.denoise_lesions:
                smooth = _without_noise(case, lesion, spec, margin_voxels=blank_margin_voxels)
                learned = [draw(generator=numpy_generator(*own), image=smooth)[0] for own in seeds]
            for start in range(0, len(patches), _ENCODE_BATCH):
                part = slice(start, start + _ENCODE_BATCH)
                images, masks = zip(*patches[part], strict=True)
                mask = torch.from_numpy(np.stack(masks))[:, None]
                blanked = blank_lesion(_normalized(images, window), mask, margin_voxels=blank_margin_voxels)
                clean, surroundings = (
                    _encode(shown, autoencoder, device) for shown in (_normalized(learned[part], window), blanked)
                )
                on_grid = mask_on_latent_grid(mask, downsampling=autoencoder.network.downsampling)
                encoded.append((clean, surroundings, on_grid))
            types += [lesion.type_index] * config.patches_per_lesion
            bar.update(done)
    clean, surroundings, masks_on_grid = (torch.cat(parts).half().contiguous() for parts in zip(*encoded, strict=True))
    latents = LesionLatents(clean, surroundings, masks_on_grid, torch.tensor(types))
    with written_whole(path) as temporary:
        save_file({f.name: getattr(latents, f.name) for f in fields(latents)}, temporary, metadata={"key": key})
    return latents


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
