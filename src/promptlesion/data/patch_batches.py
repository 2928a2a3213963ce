"""Batches of normalised patches for training, each item drawn from its own (seed, step, item)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.patch_sampling import PatchSampler
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.seeding import numpy_generator


@dataclass(frozen=True)
class PatchBatch:
    """Patches with their labels."""

    image: Float[Tensor, "batch 1 x y z"]
    """Intensities normalised to [-1, 1]."""
    labels: Int[Tensor, "batch 1 x y z"]
    """Label values of the dataset."""
    lesion_mask: Bool[Tensor, "batch 1 x y z"]
    """Voxels of any lesion type."""


class PatchBatches:
    """Class-balanced, randomly mirrored patches; batch `step` is the same whenever and wherever it is drawn."""

    def __init__(
        self,
        cases: Sequence[CachedCase],
        *,
        spec: DatasetSpec,
        patch_voxels: int,
        batch_size: int,
        seed: int,
        extra_cases: Sequence[CachedCase] = (),
        extra_share: float = 0.0,
    ) -> None:
        """Prepare to draw.

        Args:
            cases: where patches come from.
            spec: window and lesion types; every type and "anywhere" are drawn equally often.
            patch_voxels: edge of the cubic patch.
            batch_size: patches in a batch.
            seed: of every draw.
            extra_cases: a second set of cases, synthetic ones say.
            extra_share: probability that a patch comes from the second set.
        """
        lesion_labels = [lesion.label for lesion in spec.lesions]
        size = (patch_voxels, patch_voxels, patch_voxels)
        self._samplers = [
            PatchSampler(group, patch_voxels=size, class_labels=[0, *lesion_labels])
            for group in (cases, extra_cases)
            if group
        ]
        self._extra_share = extra_share if extra_cases else 0.0
        self._window = HUWindow(*spec.window_hu)
        self._lesion_labels = np.array(lesion_labels)
        self._batch_size = batch_size
        self._seed = seed

    def draw(self, step: int, items: range | None = None) -> PatchBatch:
        """Return batch number `step`, or only some items of it."""
        patches = [
            self._draw_item(numpy_generator(self._seed, "patch", step, item))
            for item in (range(self._batch_size) if items is None else items)
        ]
        image = np.stack([patch[0] for patch in patches])[:, None]
        labels = np.stack([patch[1] for patch in patches])[:, None]
        return PatchBatch(
            image=torch.from_numpy(self._window.normalize(image.astype(np.float32))),
            labels=torch.from_numpy(labels.astype(np.int64)),
            lesion_mask=torch.from_numpy(np.isin(labels, self._lesion_labels)),
        )

    def _draw_item(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sampler = self._samplers[-1] if generator.random() < self._extra_share else self._samplers[0]
        patch = sampler.draw(generator)
        mirrored_axes = tuple(int(axis) for axis in np.flatnonzero(generator.random(3) < 0.5))
        return np.flip(patch.image, mirrored_axes), np.flip(patch.labels, mirrored_axes)
