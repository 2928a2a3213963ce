"""A patch around one lesion, with the mask of that lesion alone: cut, or drawn turned and mirrored."""

import numpy as np
from jaxtyping import Bool, Int16
from scipy import ndimage

from promptlesion.data.cache import CachedCase
from promptlesion.data.crops import crop
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS, LesionInstance
from promptlesion.data.patch_sampling import AIR_HU
from promptlesion.data.spec import DatasetSpec


def cut_lesion(
    case: CachedCase, lesion: LesionInstance, spec: DatasetSpec, *, start: tuple[int, int, int], patch_voxels: int
) -> tuple[Int16[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Cut a cubic patch out of a case: HU, air outside the scan, and the lesion's mask.

    The lesion's centre must lie in it, its first voxel may lie outside the case. Other lesions, of the same type or
    not, are not in the mask.
    """
    size = (patch_voxels, patch_voxels, patch_voxels)
    is_type = crop(case.labels, start, size, fill=0) == spec.lesions[lesion.type_index].label
    components, _ = ndimage.label(is_type, structure=ALL_26_NEIGHBOURS)
    center = tuple(c - s for c, s in zip(lesion.center_voxel, start, strict=True))
    mask: np.ndarray = components == components[center]
    return crop(case.image, start, size, fill=AIR_HU), mask


def draw_lesion_patch(
    case: CachedCase,
    lesion: LesionInstance,
    spec: DatasetSpec,
    *,
    patch_voxels: int,
    generator: np.random.Generator,
    image: Int16[np.ndarray, "_ _ _"] | None = None,
) -> tuple[Int16[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Cut a turned and mirrored patch that holds the lesion's centre near its middle.

    Few subjects are soon known by heart; turned and mirrored, their surroundings are others. Axes change places only
    where a voxel has equal sides. `image` holds HU to cut instead of the case's own, of the same shape.
    """
    offset = generator.integers(3 * patch_voxels // 8, 5 * patch_voxels // 8 + 1, size=3)
    x, y, z = (int(c) - int(o) for c, o in zip(lesion.center_voxel, offset, strict=True))
    patch, mask = cut_lesion(case, lesion, spec, start=(x, y, z), patch_voxels=patch_voxels)
    if image is not None:
        patch = crop(image, (x, y, z), patch.shape, fill=AIR_HU)
    mirrored = tuple(int(axis) for axis in np.flatnonzero(generator.random(3) < 0.5))
    is_isotropic = np.allclose(spec.spacing_mm, spec.spacing_mm[0], rtol=1e-3)
    order = [int(axis) for axis in generator.permutation(3)] if is_isotropic else [0, 1, 2]
    return np.flip(patch, mirrored).transpose(order), np.flip(mask, mirrored).transpose(order)
