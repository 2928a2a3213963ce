"""The model's patch around a lesion, at the model's spacing, and the way from the scan's grid to it and back.

All of it is reckoned in voxels of the scan, from the lesion on: where the scan lies in the world, and how its origin
is rounded there, does not matter. So a scan that is stored flipped gives the same patch bit for bit.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from promptlesion.data.boxes import Box
from promptlesion.data.patch_sampling import AIR_HU
from promptlesion.data.resampling import resample_array
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion

_SMOOTHING_MARGIN_VOXELS = 8
_SAME_SPACING_MM = 1e-3
_ROUNDING = 1e-6
_IDENTITY = np.eye(4)


@dataclass(frozen=True)
class PatchGrid:
    """A cubic grid along the scan's axes; where the spacings agree its voxels are voxels of the scan.

    The middle voxel of the patch lies on `center_voxel` of the scan; `step_voxels` is the distance between voxels of
    the patch, in voxels of the scan, along each axis.
    """

    center_voxel: tuple[int, int, int]
    step_voxels: tuple[float, float, float]
    patch_voxels: int

    def pull(
        self, array: Shaped[np.ndarray, "x y z"], *, start: tuple[int, ...] = (0, 0, 0), order: int, fill: float | int
    ) -> Shaped[np.ndarray, "i j k"]:
        """Bring a scan's array to the patch; touches only the part of the scan around it.

        Args:
            start: the voxel of the scan that the array begins with.
            fill: where the patch leaves the array.
        """
        index_map = self._index_map(start)
        first, step = index_map[:3, 3], np.diag(index_map)[:3]
        last = first + (self.patch_voxels - 1) * step
        low = np.floor(first).astype(int) - _SMOOTHING_MARGIN_VOXELS
        high = np.ceil(last).astype(int) + _SMOOTHING_MARGIN_VOXELS + 1
        near = tuple(
            slice(min(max(0, int(a)), n - 1), max(1, min(int(b), n)))
            for a, b, n in zip(low, high, array.shape, strict=True)
        )
        index_map = self._index_map(tuple(a + side.start for a, side in zip(start, near, strict=True)))
        size = (self.patch_voxels, self.patch_voxels, self.patch_voxels)
        return resample_array(array[near], _IDENTITY, index_map, size, order, float(fill))

    def footprint(self, shape: tuple[int, int, int]) -> Box:
        """Return the box of a scan of this shape whose voxels the patch covers."""
        first = self._index_map((0, 0, 0))[:3, 3]
        last = first + (self.patch_voxels - 1) * np.array(self.step_voxels)
        x, y, z = (
            slice(min(max(0, int(np.ceil(a - _ROUNDING))), n - 1), max(1, min(int(np.floor(b + _ROUNDING)) + 1, n)))
            for a, b, n in zip(first, last, shape, strict=True)
        )
        return x, y, z

    def push(self, patch: Float32[np.ndarray, "i j k"], box: Box) -> Float32[np.ndarray, "x y z"]:
        """Bring a patch to a box of the scan's grid."""
        x, y, z = (side.stop - side.start for side in box)
        step = np.array(self.step_voxels)
        index_map = np.diag([*(1 / step), 1.0])
        offset = np.array([side.start for side in box]) - np.array(self.center_voxel)
        index_map[:3, 3] = self.patch_voxels // 2 + offset / step
        return resample_array(patch, _IDENTITY, index_map, (x, y, z), 1, None)

    def _index_map(self, start: tuple[int, ...]) -> Float64[np.ndarray, "4 4"]:
        """Return the map from indices of the patch to indices of an array that begins with a voxel of the scan."""
        index_map = np.diag([*self.step_voxels, 1.0])
        middle = self.patch_voxels // 2 * np.array(self.step_voxels)
        index_map[:3, 3] = np.array(self.center_voxel) - np.array(start) - middle
        return index_map


def patch_grid(
    volume: Volume,
    center_voxel: tuple[int, int, int],
    *,
    spacing_mm: tuple[float, float, float],
    patch_voxels: int,
) -> PatchGrid:
    """Return the patch whose middle voxel lies on a voxel of the scan."""
    x, y, z = (
        1.0 if abs(wanted - own) <= _SAME_SPACING_MM else wanted / own
        for wanted, own in zip(spacing_mm, volume.spacing_mm, strict=True)
    )
    return PatchGrid(center_voxel, (x, y, z), patch_voxels)


def pull_image(grid: PatchGrid, image: Volume) -> Float32[np.ndarray, "i j k"]:
    """Bring HU to the patch, air where it leaves the scan."""
    return grid.pull(image.array, order=1, fill=AIR_HU)


def pull_mask(grid: PatchGrid, lesion: PlacedLesion) -> Bool[np.ndarray, "i j k"]:
    """Bring a lesion's mask to the patch; a lesion smaller than a voxel there keeps its most covered one."""
    start = tuple(side.start for side in lesion.box)
    share = grid.pull(lesion.mask.astype(np.float32), start=start, order=1, fill=0)
    return share >= min(0.5, float(share.max()))
