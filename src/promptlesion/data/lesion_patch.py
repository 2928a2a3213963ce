"""A patch around one lesion, with the mask of that lesion alone: cut, or drawn turned, mirrored and bent."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Float64, Int16, Shaped
from scipy import ndimage
from scipy.spatial.transform import Rotation

from promptlesion.data.cache import CachedCase
from promptlesion.data.crops import crop
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS, LesionInstance
from promptlesion.data.patch_sampling import AIR_HU
from promptlesion.data.spec import DatasetSpec

_MOST_DEGREES = 30.0
"""About each axis: quarter turns come on top."""
_MOST_SCALING = 1.2
_BEND_VOXELS, _BEND_GRAIN_VOXELS = 1.0, 5.0
"""Root mean square of a bend along each axis, and how far it takes to change."""


@dataclass(frozen=True, eq=False)
class Warp:
    """Where the voxels of a patch come from: turned, scaled and bent about its middle.

    `source` holds, for every voxel of the patch, the place in the scan, in voxels of a box that begins at `start`.
    """

    start: tuple[int, int, int]
    size: tuple[int, int, int]
    source: Float64[np.ndarray, "3 i j k"]

    def hu(self, image: Shaped[np.ndarray, "_ _ _"]) -> Float32[np.ndarray, "i j k"]:
        """Bring a scan to the patch by cubic splines, which blur little; within the HU that there are."""
        box = crop(image, self.start, self.size, fill=AIR_HU).astype(np.float32)
        values: np.ndarray = ndimage.map_coordinates(box, self.source, order=3, mode="nearest")
        return values.clip(box.min(), box.max())

    def mask(self, mask: Bool[np.ndarray, "_ _ _"]) -> Bool[np.ndarray, "i j k"]:
        """Bring a mask in the box to the patch."""
        share: np.ndarray = ndimage.map_coordinates(mask.astype(np.float32), self.source, order=1, mode="nearest")
        return share >= 0.5


def draw_warp(
    start: tuple[int, int, int],
    *,
    patch_voxels: int,
    spacing_mm: tuple[float, float, float],
    generator: np.random.Generator,
) -> Warp:
    """Draw a turn, a scaling and a bend of the patch that begins at `start`; angles are true in millimetres."""
    spacing = np.diag(spacing_mm)
    turn = Rotation.from_euler("xyz", np.radians(generator.uniform(-_MOST_DEGREES, _MOST_DEGREES, 3))).as_matrix()
    factor = np.exp(generator.uniform(-np.log(_MOST_SCALING), np.log(_MOST_SCALING)))
    matrix = np.linalg.inv(spacing) @ turn @ spacing / factor
    middle = (patch_voxels - 1) / 2
    offsets = np.stack(np.meshgrid(*[np.arange(patch_voxels) - middle] * 3, indexing="ij"))
    coarse = torch.from_numpy(
        generator.standard_normal((1, 3, *[math.ceil(patch_voxels / _BEND_GRAIN_VOXELS) + 1] * 3))
    )
    bend = F.interpolate(coarse, size=offsets.shape[1:], mode="trilinear", align_corners=True)[0].numpy()
    bend *= _BEND_VOXELS / bend.std()
    source = np.einsum("ab,bxyz->axyz", matrix, offsets) + bend + middle
    low, high = np.floor(source.min(axis=(1, 2, 3))).astype(int), np.ceil(source.max(axis=(1, 2, 3))).astype(int)
    x, y, z = (int(a + b) for a, b in zip(start, low, strict=True))
    i, j, k = (int(length) for length in high - low + 1)
    return Warp((x, y, z), (i, j, k), source - low[:, None, None, None])


def cut_lesion(
    case: CachedCase, lesion: LesionInstance, spec: DatasetSpec, *, start: tuple[int, int, int], patch_voxels: int
) -> tuple[Int16[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Cut a cubic patch out of a case: HU, air outside the scan, and the lesion's mask.

    The lesion's centre must lie in it, its first voxel may lie outside the case. Other lesions, of the same type or
    not, are not in the mask.
    """
    size = (patch_voxels, patch_voxels, patch_voxels)
    return crop(case.image, start, size, fill=AIR_HU), _mask_of(case, lesion, spec, start, size)


def draw_lesion_patch(
    case: CachedCase,
    lesion: LesionInstance,
    spec: DatasetSpec,
    *,
    patch_voxels: int,
    generator: np.random.Generator,
    image: Int16[np.ndarray, "_ _ _"] | None = None,
    warp_probability: float = 0.0,
) -> tuple[Shaped[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Cut a turned and mirrored patch that holds the lesion's centre near its middle.

    Few subjects are soon known by heart; turned and mirrored, their surroundings are others. Axes change places only
    where a voxel has equal sides.

    Args:
        image: HU to cut instead of the case's own, of the same shape.
        warp_probability: how often the patch is bent, turned and scaled a little too, so that no mask is seen twice.
    """
    shown = case.image if image is None else image
    offset = generator.integers(3 * patch_voxels // 8, 5 * patch_voxels // 8 + 1, size=3)
    x, y, z = (int(c) - int(o) for c, o in zip(lesion.center_voxel, offset, strict=True))
    start, size = (x, y, z), (patch_voxels, patch_voxels, patch_voxels)
    patch: np.ndarray | None = None
    if warp_probability and generator.random() < warp_probability:
        warp = draw_warp(start, patch_voxels=patch_voxels, spacing_mm=spec.spacing_mm, generator=generator)
        mask = warp.mask(_mask_of(case, lesion, spec, warp.start, warp.size))
        patch = warp.hu(shown) if mask.any() else None
    if patch is None:
        patch, mask = crop(shown, start, size, fill=AIR_HU), _mask_of(case, lesion, spec, start, size)
    mirrored = tuple(int(axis) for axis in np.flatnonzero(generator.random(3) < 0.5))
    is_isotropic = np.allclose(spec.spacing_mm, spec.spacing_mm[0], rtol=1e-3)
    order = [int(axis) for axis in generator.permutation(3)] if is_isotropic else [0, 1, 2]
    return np.flip(patch, mirrored).transpose(order), np.flip(mask, mirrored).transpose(order)


def _mask_of(
    case: CachedCase,
    lesion: LesionInstance,
    spec: DatasetSpec,
    start: tuple[int, int, int],
    size: tuple[int, int, int],
) -> Bool[np.ndarray, "i j k"]:
    """Return the mask of one lesion in a box that holds its centre."""
    is_type = crop(case.labels, start, size, fill=0) == spec.lesions[lesion.type_index].label
    components, _ = ndimage.label(is_type, structure=ALL_26_NEIGHBOURS)
    center = tuple(c - s for c, s in zip(lesion.center_voxel, start, strict=True))
    mask: np.ndarray = components == components[center]
    return mask
