"""How faithfully the autoencoder shows lesions: the bound on everything stage 2 can draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from promptlesion.autoencoder.autoencoder import Autoencoder
from promptlesion.data.cache import CachedCase
from promptlesion.data.crops import centered_start
from promptlesion.data.intensity import HUWindow, intensity_tolerance_hu
from promptlesion.data.lesion_patch import cut_lesion
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.device import autocast
from promptlesion.training.optimisation import Precision


@dataclass(frozen=True)
class LesionBias:
    """Mean HU inside the lesions of a type, real against autoencoded.

    Voxels outside the window are clipped in both.
    """

    lesion_type: str
    num_lesions: int
    real_mean_hu: float
    autoencoded_mean_hu: float

    @property
    def is_faithful(self) -> bool:
        """Whether the bias is within 25 % of the real mean, or 30 HU, whichever is more."""
        return abs(self.autoencoded_mean_hu - self.real_mean_hu) <= intensity_tolerance_hu(self.real_mean_hu)


@torch.no_grad()
def autoencoded_mean_hu(
    autoencoder: Autoencoder,
    cases: Sequence[CachedCase],
    *,
    spec: DatasetSpec,
    patch_voxels: int,
    precision: Precision,
    device: torch.device,
) -> dict[str, Float64[np.ndarray, "_ 2"]]:
    """Reconstruct a patch around every lesion; per type, the mean HU inside each lesion before and after."""
    window = HUWindow(*spec.window_hu)
    means: dict[str, list[tuple[float, float]]] = {}
    for case, lesion in ((own, lesion) for own in cases for lesion in own.lesions):
        start = centered_start(lesion.center_voxel, (patch_voxels, patch_voxels, patch_voxels))
        image_hu, inside = cut_lesion(case, lesion, spec, start=start, patch_voxels=patch_voxels)
        image = torch.from_numpy(window.normalize(image_hu.astype(np.float32)))[None, None].to(device)
        with autocast(device, precision):
            decoded = autoencoder.decode(autoencoder.encode(image))
        decoded_hu = window.to_hu(decoded[0, 0].float().cpu().numpy())
        real = float(np.clip(image_hu[inside], window.low, window.high).mean())
        means.setdefault(spec.lesions[lesion.type_index].name, []).append((real, float(decoded_hu[inside].mean())))
    return {name: np.array(pairs) for name, pairs in means.items()}


def measure_lesion_bias(
    autoencoder: Autoencoder,
    cases: Sequence[CachedCase],
    *,
    spec: DatasetSpec,
    patch_voxels: int,
    precision: Precision,
    device: torch.device,
) -> list[LesionBias]:
    """Sum up `autoencoded_mean_hu` by type; types without a lesion are left out."""
    found = autoencoded_mean_hu(
        autoencoder, cases, spec=spec, patch_voxels=patch_voxels, precision=precision, device=device
    )
    return [
        LesionBias(name, len(pairs), *(float(value) for value in pairs.mean(axis=0).round(1)))
        for name, pairs in found.items()
    ]
