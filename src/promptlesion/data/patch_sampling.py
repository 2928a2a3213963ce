"""Training patches out of the cache, every class as often as every other."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from promptlesion.data.cache import CachedCase

AIR_HU = -1024
"""What lies outside a scan."""
ANYWHERE = 0
"""The class label that stands for any place in any case."""
_TABLES_KEPT = 256
"""Of voxels, each of one class in one case and at most 48 KB: however many cases there are."""


class PatchSampler:
    """Draws places of patches: first a class, then a case that has it, then one of its voxels, all evenly.

    The voxel comes to lie in the central half of the patch along every axis, elsewhere in each draw. The
    class 0 stands for anywhere: a patch that lies as far inside a scan as it fits. Classes that no case has
    are left out.
    """

    def __init__(
        self, cases: Sequence[CachedCase], patch_voxels: tuple[int, int, int], class_labels: Sequence[int]
    ) -> None:
        """Look up which case has which class; opens no image."""
        self._patch_voxels = patch_voxels
        self._label_voxels = lru_cache(_TABLES_KEPT)(CachedCase.label_voxels)
        with_label = {
            label: [case for case in cases if label == ANYWHERE or label in case.num_label_voxels]
            for label in class_labels
        }
        self._cases_with_class = {label: found for label, found in with_label.items() if found}
        if not self._cases_with_class:
            raise ValueError(f"expected one of the labels {list(class_labels)} in {len(cases)} cases, found none")

    @property
    def occurring_classes(self) -> tuple[int, ...]:
        """The class labels that are drawn."""
        return tuple(self._cases_with_class)

    def draw_place(self, generator: np.random.Generator) -> tuple[CachedCase, tuple[int, int, int]]:
        """Where a patch comes from: its case and its first voxel there, which may lie outside of the scan.

        The same state of the generator gives the same place.
        """
        label = self.occurring_classes[generator.integers(len(self._cases_with_class))]
        candidates = self._cases_with_class[label]
        case = candidates[generator.integers(len(candidates))]
        if label == ANYWHERE:
            return case, self._start_inside(case.image.shape, generator)
        return case, self._start_around(self._label_voxels(case, label), generator)

    def _start_inside(self, shape: tuple[int, ...], generator: np.random.Generator) -> tuple[int, int, int]:
        room = [length - extent for length, extent in zip(shape, self._patch_voxels, strict=True)]
        x, y, z = (int(generator.integers(min(0, free), max(0, free) + 1)) for free in room)
        return x, y, z

    def _start_around(self, voxels: np.ndarray, generator: np.random.Generator) -> tuple[int, int, int]:
        voxel = voxels[generator.integers(len(voxels))]
        x, y, z = (
            int(index) - int(generator.integers(extent // 4, extent - extent // 4))
            for index, extent in zip(voxel, self._patch_voxels, strict=True)
        )
        return x, y, z
