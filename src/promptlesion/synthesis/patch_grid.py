"""The model's patch around a lesion, at the model's spacing, and the way from the scan's grid to it and back."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped

from promptlesion.data.patch_sampling import AIR_HU
from promptlesion.data.resampling import resample_array
from promptlesion.data.volume import Volume
from promptlesion.synthesis.placement import Box, PlacedLesion

_SMOOTHING_MARGIN_VOXELS = 8


@dataclass(frozen=True)
class PatchGrid:
    """A cubic grid along the scan's axes; where the spacings agree its voxels are voxels of the scan."""

    affine: Float[np.ndarray, "4 4"]
    size: tuple[int, int, int]

    def pull(
        self, array: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], *, order: int, fill: float | int
    ) -> Shaped[np.ndarray, "i j k"]:
        """Bring a scan's array to the patch; touches only the part of the scan around it."""
        corners = np.stack(np.meshgrid(*((0, n - 1) for n in self.size), indexing="ij"), axis=-1).reshape(-1, 3)
        in_scan = _apply(np.linalg.inv(affine) @ self.affine, corners)
        low = np.floor(in_scan.min(axis=0)).astype(int) - _SMOOTHING_MARGIN_VOXELS
        high = np.ceil(in_scan.max(axis=0)).astype(int) + _SMOOTHING_MARGIN_VOXELS + 1
        near = tuple(
            slice(min(max(0, a), n - 1), max(1, min(b, n))) for a, b, n in zip(low, high, array.shape, strict=True)
        )
        part = array[near]
        return resample_array(part, _shifted(affine, near), self.affine, self.size, order, float(fill))

    def push(
        self, patch: Float32[np.ndarray, "i j k"], affine: Float[np.ndarray, "4 4"], box: Box
    ) -> Float32[np.ndarray, "x y z"]:
        """Bring a patch to a box of the scan's grid."""
        x, y, z = (side.stop - side.start for side in box)
        return resample_array(patch, self.affine, _shifted(affine, box), (x, y, z), 1, None)


def patch_grid(
    volume: Volume,
    center_voxel: tuple[int, int, int],
    *,
    spacing_mm: tuple[float, float, float],
    patch_voxels: int,
) -> PatchGrid:
    """Return the patch whose middle voxel lies on a voxel of the scan."""
    directions = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing_mm)
    middle = np.full(3, patch_voxels // 2)
    affine[:3, 3] = _apply(volume.affine, np.array(center_voxel)[None])[0] - affine[:3, :3] @ middle
    if np.allclose(volume.spacing_mm, spacing_mm, rtol=0, atol=1e-3):
        box = tuple(slice(int(c - m), int(c - m) + patch_voxels) for c, m in zip(center_voxel, middle, strict=True))
        affine = _shifted(volume.affine, box)
    return PatchGrid(affine, (patch_voxels, patch_voxels, patch_voxels))


def pull_image(grid: PatchGrid, image: Volume) -> Float32[np.ndarray, "i j k"]:
    """Bring HU to the patch, air where it leaves the scan."""
    return grid.pull(image.array, image.affine, order=1, fill=AIR_HU)


def pull_mask(grid: PatchGrid, lesion: PlacedLesion, image: Volume) -> Bool[np.ndarray, "i j k"]:
    """Bring a lesion's mask to the patch; a lesion smaller than a voxel there keeps its most covered one."""
    share = grid.pull(lesion.mask.astype(np.float32), _shifted(image.affine, lesion.box), order=1, fill=0)
    return share >= min(0.5, float(share.max()))


def _apply(affine: Float[np.ndarray, "4 4"], points: Shaped[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    mapped: np.ndarray = points @ affine[:3, :3].T + affine[:3, 3]
    return mapped


def _shifted(affine: Float[np.ndarray, "4 4"], box: tuple[slice, ...]) -> Float[np.ndarray, "4 4"]:
    """Return the affine of a part of an array."""
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ np.array([side.start for side in box])
    return shifted
