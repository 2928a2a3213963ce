"""Batches of lesion patches with their labels one-hot, each item drawn from its own (seed, step, item)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from promptlesion.data.cache import CachedCase
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_patch import draw_lesion_patch
from promptlesion.data.spec import DatasetSpec
from promptlesion.prompt.encoders import masks_by_type
from promptlesion.training.seeding import numpy_generator


@dataclass(frozen=True)
class LesionBatch:
    """Patches and what Med-DDPM is told about them."""

    image: Float[Tensor, "batch 1 x y z"]
    """Intensities normalised to [-1, 1]."""
    labels: Float[Tensor, "batch type x y z"]
    """One-hot: the patch's lesion in the channel of its type."""


class LesionBatches:
    """Patches around lesions, all types equally often; batch `step` is the same whenever and wherever it is drawn."""

    def __init__(self, cases: Sequence[CachedCase], *, spec: DatasetSpec, patch_voxels: int, seed: int) -> None:
        """Prepare to draw.

        Raises:
            ValueError: no case has a lesion.
        """
        lesions = [(case, lesion) for case in cases for lesion in case.lesions]
        if not lesions:
            raise ValueError(f"expected lesions in the {len(cases)} training cases; found none")
        types = sorted({lesion.type_index for _, lesion in lesions})
        self._of_type = [[entry for entry in lesions if entry[1].type_index == index] for index in types]
        self._window = HUWindow(*spec.window_hu)
        self._spec = spec
        self._patch_voxels = patch_voxels
        self._seed = seed

    def draw(self, step: int, items: range) -> LesionBatch:
        """Return some items of batch number `step`."""
        images, masks, types = zip(*(self._draw_item(step, item) for item in items), strict=True)
        return LesionBatch(
            image=torch.from_numpy(self._window.normalize(np.stack(images).astype(np.float32)))[:, None],
            labels=masks_by_type(
                torch.tensor(types),
                torch.from_numpy(np.stack(masks).astype(np.float32))[:, None],
                num_types=len(self._spec.lesions),
            ),
        )

    def _draw_item(self, step: int, item: int) -> tuple[np.ndarray, np.ndarray, int]:
        generator = numpy_generator(self._seed, "patch", step, item)
        lesions = self._of_type[generator.integers(len(self._of_type))]
        case, lesion = lesions[generator.integers(len(lesions))]
        image, mask = draw_lesion_patch(case, lesion, self._spec, patch_voxels=self._patch_voxels, generator=generator)
        return image, mask, lesion.type_index
