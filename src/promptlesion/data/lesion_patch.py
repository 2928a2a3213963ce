"""A patch around one lesion, with the mask of that lesion alone."""

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
    """Cut a cubic patch out of a case; other lesions in it, of the same type or not, are not in the mask.

    Args:
        case: the prepared case.
        lesion: one of its lesions; its centre must lie in the patch.
        spec: lesion types of the dataset.
        start: first voxel of the patch, may lie outside the case.
        patch_voxels: edge of the patch.

    Returns:
        HU, air outside the scan, and the lesion's mask.
    """
    size = (patch_voxels, patch_voxels, patch_voxels)
    is_type = crop(case.labels, start, size, fill=0) == spec.lesions[lesion.type_index].label
    components, _ = ndimage.label(is_type, structure=ALL_26_NEIGHBOURS)
    center = tuple(c - s for c, s in zip(lesion.center_voxel, start, strict=True))
    mask: np.ndarray = components == components[center]
    return crop(case.image, start, size, fill=AIR_HU), mask
