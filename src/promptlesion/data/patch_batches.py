"""Batches of normalised patches for training, each item drawn from its own (seed, step, item)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int16, UInt8
from torch import Tensor

from promptlesion.data.augmentation import Augmentation, warped_patch
from promptlesion.data.cache import CachedCase
from promptlesion.data.crops import crop
from promptlesion.data.intensity import HUWindow
from promptlesion.data.patch_sampling import AIR_HU, PatchSampler
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.seeding import numpy_generator

_NONE = Fraction(0)


@dataclass(frozen=True)
class PatchBatch:
    """Patches with their labels."""

    image: Float[Tensor, "batch 1 x y z"]
    """Intensities normalised to [-1, 1]."""
    labels: UInt8[Tensor, "batch 1 x y z"]
    """Label values of the dataset."""
    lesion_mask: Bool[Tensor, "batch 1 x y z"]
    """Voxels of any lesion type."""


@dataclass(frozen=True)
class PatchCut:
    """How patches are cut out of scans, normalised and varied."""

    size: tuple[int, int, int]
    """Voxels."""
    window: HUWindow
    spacing_mm: tuple[float, float, float]
    augmentation: Augmentation | None = None
    """How they are varied; none: each axis mirrored every other time."""

    def cut(
        self,
        image: Int16[np.ndarray, "x y z"],
        labels: UInt8[np.ndarray, "x y z"],
        *,
        start: tuple[int, int, int],
        generator: np.random.Generator,
        varying: np.random.Generator,
    ) -> tuple[Float32[np.ndarray, "i j k"], UInt8[np.ndarray, "i j k"]]:
        """Cut a patch of HU and its labels; mirroring is drawn from `generator`, the rest from `varying`.

        `start` is its first voxel, which may lie outside of the scan.
        """
        changes, size = self.augmentation, self.size
        warp = changes.draw_warp(self.spacing_mm, varying) if changes else None
        if warp is None:
            patch, cut_labels = crop(image, start, size, AIR_HU), crop(labels, start, size, 0)
        else:
            patch, cut_labels = warped_patch(image, labels, start=start, size=size, warp=warp, fill_hu=AIR_HU)
        normalized = self.window.normalize(patch)
        if changes:
            normalized = changes.change_intensity(normalized, varying)
        mirror_probability = changes.mirror_probability if changes else 0.5
        mirrored_axes = tuple(int(axis) for axis in np.flatnonzero(generator.random(3) < mirror_probability))
        return np.flip(normalized, mirrored_axes), np.flip(cut_labels, mirrored_axes)


class PatchBatches:
    """Class-balanced, randomly varied patches; batch `step` is the same whenever and wherever it is drawn."""

    def __init__(
        self,
        cases: Sequence[CachedCase],
        *,
        spec: DatasetSpec,
        patch_voxels: int,
        batch_size: int,
        seed: int,
        extra_cases: Sequence[CachedCase] = (),
        extra_share: Fraction = _NONE,
        augmentation: Augmentation | None = None,
    ) -> None:
        """Prepare to draw.

        Every lesion type and "anywhere" are drawn equally often. Of all patches `extra_share` come from a second set of
        cases, synthetic ones say: exactly of every batch, to one patch, and of the batches together. Without an
        augmentation each axis is mirrored every other time.
        """
        lesion_labels = [lesion.label for lesion in spec.lesions]
        size = (patch_voxels, patch_voxels, patch_voxels)
        self._cut = PatchCut(size, HUWindow(*spec.window_hu), spec.spacing_mm, augmentation)
        self._samplers = [
            PatchSampler(group, patch_voxels=size, class_labels=[0, *lesion_labels])
            for group in (cases, extra_cases)
            if group
        ]
        self._extra_share = extra_share if extra_cases else _NONE
        self._is_lesion = np.isin(np.arange(256), lesion_labels)
        self._batch_size = batch_size
        self._seed = seed

    def draw(self, step: int, items: range | None = None) -> PatchBatch:
        """Return batch number `step`, or only some items of it."""
        drawn = range(self._batch_size) if items is None else items
        image = np.empty((len(drawn), 1, *self._cut.size), dtype=np.float32)
        labels = np.empty(image.shape, dtype=np.uint8)
        for index, item in enumerate(drawn):
            image[index, 0], labels[index, 0] = self._draw_item(step, item)
        return PatchBatch(
            image=torch.from_numpy(image),
            labels=torch.from_numpy(labels),
            lesion_mask=torch.from_numpy(self._is_lesion[labels]),
        )

    def _draw_item(self, step: int, item: int) -> tuple[Float32[np.ndarray, "x y z"], UInt8[np.ndarray, "x y z"]]:
        """Draw one patch; where it comes from does not depend on how patches are varied."""
        generator = numpy_generator(self._seed, "patch", step, item)
        number = step * self._batch_size + item  # of all patches; the second set's come at even distances
        is_extra = floor((number + 1) * self._extra_share) > floor(number * self._extra_share)
        sampler = self._samplers[-1] if is_extra else self._samplers[0]
        case, start = sampler.draw_place(generator)
        varying = numpy_generator(self._seed, "augmentation", step, item)
        return self._cut.cut(case.image, case.labels, start=start, generator=generator, varying=varying)
