"""What methods without a network share: an edge as soft as a scanner's blur makes it, and the scan's own fine noise."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from scipy import ndimage

from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.spec import DatasetSpec
from promptlesion.synthesis.blend import edge_weight
from promptlesion.synthesis.scan_noise import draw_noise, lost_noise
from promptlesion.synthesis.synthesizer import SynthesizerCard, facts_of_run
from promptlesion.training.device import resolve_device

_FINER = 1.2
EDGE_VOXELS = 3
"""Reach of the edge in voxels of the dataset's spacing; beyond, a scanner's blur has faded."""


def card_without_network(card: Mapping[str, Any], method: str, *, device: str, source: Path) -> SynthesizerCard:
    """Return what a method without a network is, from the card of its run.

    Nothing limits how large its lesions are, but how far a vessel is followed costs time: four times the largest
    sphere of a type's range is enough. Without a network there is nothing that lesions painted together share.
    """
    spec = DatasetSpec.model_validate(card["dataset"])
    return SynthesizerCard(
        **facts_of_run(card, method=method, source=source),
        device=resolve_device(device),
        edge_mm=EDGE_VOXELS * max(spec.spacing_mm),
        max_extent_mm=4 * max(lesion_type.diameter_mm[1] for lesion_type in spec.lesions),
        finest_mm=sphere_diameter_mm(math.prod(spec.spacing_mm)),
    )


def soft_share(
    mask: Bool[np.ndarray, "x y z"], *, softness_mm: float, spacing_mm: tuple[float, float, float], edge_mm: float
) -> Float[np.ndarray, "x y z"]:
    """Return how much of every voxel's HU comes from a lesion, under a Gaussian blur of this standard deviation.

    What `blend` takes off the edge outside the mask once more is made up for, so that the blur alone is left.
    """
    sigma = [softness_mm / side for side in spacing_mm]
    share = ndimage.gaussian_filter(mask.astype(np.float64), sigma, mode="constant")
    weight = edge_weight(mask, spacing_mm=spacing_mm, edge_mm=edge_mm)
    made_up: np.ndarray = np.divide(share, weight, out=np.zeros_like(share), where=weight > 0).clip(0, 1)
    return made_up


def from_inside(
    hu: Shaped[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], *, spacing_mm: tuple[float, float, float]
) -> Float32[np.ndarray, "x y z"]:
    """Return the HU with every voxel outside a mask given that of the mask's nearest voxel."""
    nearest = ndimage.distance_transform_edt(~mask, sampling=spacing_mm, return_distances=False, return_indices=True)
    filled: np.ndarray = hu[tuple(nearest)].astype(np.float32)
    return filled


def finer_noise(
    scan: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: tuple[float, float, float],
    kept_mm: tuple[float, float, float],
    generator: np.random.Generator,
) -> Float32[np.ndarray, "x y z"]:
    """Return noise like the scan's that voxels kept at a coarser spacing do not have; 0 where the scan is no finer.

    Without it a lesion would stand out as the only smooth thing in the scan.

    Args:
        scan: HU of the box around a lesion.
        mask: of the lesion, where the noise's strength counts.
        spacing_mm: of the scan.
        kept_mm: spacing that lesions were kept or measured at.
        generator: of the draw.
    """
    x, y, z = (kept / own for kept, own in zip(kept_mm, spacing_mm, strict=True))
    if max(x, y, z) < _FINER:
        return np.zeros_like(scan)
    coarse = ndimage.gaussian_filter(scan, [step / 2 for step in (x, y, z)], mode="nearest")
    lost = lost_noise(scan, coarse, sigma_voxels=(x, y, z))
    i, j, k = ndimage.find_objects(mask.astype(np.uint8))[0]
    return draw_noise(lost, (i, j, k), generator=generator)
