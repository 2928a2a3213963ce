"""Lesions with a texture of their own, and what may become of one that is copied."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from promptlesion.evaluation.lesions import LesionCrop

SPACING_MM = (0.8, 0.8, 1.2)


def textured(
    seed: int, *, lesion_type: str = "tumor", radius_mm: tuple[float, float] = (3.0, 5.0), mean_hu: float = 80.0
) -> LesionCrop:
    """A deformed ball with blobs and noise in it, in darker surroundings, blurred as by a scanner."""
    generator = np.random.default_rng(seed)
    shape = (22, 24, 16)
    grids = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    axes_mm = generator.uniform(*radius_mm, 3)
    offsets = [(g - (n - 1) / 2) * mm / r for g, n, mm, r in zip(grids, shape, SPACING_MM, axes_mm, strict=True)]
    surface = 1 + 0.4 * ndimage.gaussian_filter(generator.normal(0, 1, shape), 3) / 0.05 * 0.1
    mask = np.sqrt(sum(offset**2 for offset in offsets)) < surface
    blobs = ndimage.gaussian_filter(generator.normal(0, 1, shape), 1.2)
    hu = np.where(mask, mean_hu + 25 * blobs / blobs.std(), mean_hu - 100)
    hu = ndimage.gaussian_filter(hu, 0.6) + ndimage.gaussian_filter(generator.normal(0, 25, shape), 0.5)
    return LesionCrop(
        case=f"case_{seed}",
        subject=f"subject_{seed}",
        lesion_type=lesion_type,
        hu=hu.astype(np.float32),
        mask=mask,
        start_voxel=(seed, 2 * seed, 3),
        spacing_mm=SPACING_MM,
    )


def copied(lesion: LesionCrop, how: str, *, seed: int = 0) -> LesionCrop:
    """The same lesion under another name: moved, mirrored, turned, noised, blurred, brightened or clipped."""
    generator = np.random.default_rng(seed)
    hu, mask = lesion.hu, lesion.mask
    if how == "flipped":
        hu, mask = hu[::-1, :, ::-1], mask[::-1, :, ::-1]
    if how == "turned":
        hu, mask = np.rot90(hu), np.rot90(mask)
    if how == "noised":
        hu = hu + generator.normal(0, 10, hu.shape)
    if how == "blurred":
        hu = ndimage.gaussian_filter(hu, 0.7)
    if how == "brighter":
        hu = 1.3 * hu + 40
    if how == "clipped":
        mask = mask.copy()
        mask[np.argwhere(mask)[:, 0].max()] = False
    if how == "in other surroundings":
        hu = np.where(mask, hu, generator.normal(200, 50, hu.shape))
    return replace(
        lesion,
        case=f"synthetic_{how}",
        subject="somebody",
        hu=np.ascontiguousarray(hu, dtype=np.float32),
        mask=np.ascontiguousarray(mask),
        start_voxel=(50, 60, 70),
    )


def worse(ball: LesionCrop, change: str, strength: float, seed: int) -> LesionCrop:
    """A lesion that is wrong in one way, the more the stronger."""
    noise = np.random.default_rng(seed).normal(0, 1, ball.hu.shape)
    changed = {
        "shift": lambda: ball.hu - 200 * strength,
        "noise": lambda: ball.hu + 150 * strength * noise,
        "blur": lambda: ndimage.gaussian_filter(ball.hu, 1.5 * strength),
        "missing": lambda: ball.hu + strength * 0.5 * np.where(ball.mask, 50 - 600, 0),
    }[change]()
    return replace(ball, hu=changed.astype(np.float32))
