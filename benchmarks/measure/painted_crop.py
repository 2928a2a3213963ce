"""A lesion that was painted in memory, as a crop to be judged."""

import numpy as np
from jaxtyping import Bool, Shaped

from promptlesion.data.boxes import Box, in_box
from promptlesion.data.volume import Volume
from promptlesion.evaluation.lesions import LesionCrop


def painted_crop(
    image: Volume,
    painted_hu: Shaped[np.ndarray, "i j k"],
    mask: Bool[np.ndarray, "i j k"],
    box: Box,
    *,
    case: str,
    subject: str,
    lesion_type: str,
    margin_voxels: int = 16,
) -> LesionCrop:
    """Cut a lesion that was painted in memory as `collect_lesions` would cut it from a synthetic case.

    Args:
        image: the scan without the lesion.
        painted_hu: the box with the lesion blended in.
        mask: of the lesion, in the same box.
        box: where it lies in the scan.
        case: name of the scan.
        subject: whose scan it is.
        lesion_type: the type that was asked for.
        margin_voxels: around the mask's bounding box.
    """
    occupied = np.argwhere(mask)
    low = [max(int(a) + s.start - margin_voxels, 0) for a, s in zip(occupied.min(axis=0), box, strict=True)]
    high = [
        min(int(a) + s.start + 1 + margin_voxels, length)
        for a, s, length in zip(occupied.max(axis=0), box, image.shape, strict=True)
    ]
    x, y, z = (slice(first, last) for first, last in zip(low, high, strict=True))
    painted, is_painted = (in_box(array, box, (x, y, z)) for array in (painted_hu, np.ones(mask.shape, dtype=bool)))
    hu = np.where(is_painted, painted, image.array[x, y, z]).astype(np.float32)
    inside = in_box(mask, box, (x, y, z))
    return LesionCrop(case, subject, lesion_type, hu, inside, (low[0], low[1], low[2]), image.spacing_mm)
