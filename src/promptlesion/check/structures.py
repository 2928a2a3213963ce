"""The structures of a label map: how large, how bright and where, and every lesion among them."""

import numpy as np
from jaxtyping import Int64, UInt8
from scipy import ndimage

from promptlesion.check.facts import LabelFacts, LesionFacts
from promptlesion.check.intensity import HU_OF_BIN, LOWEST_HU
from promptlesion.data.boxes import Box
from promptlesion.data.lesion_instances import LesionInstance, cut_instance
from promptlesion.data.volume import Volume

_MOST_VOXELS_AN_AXIS = 128
_SHELL_VOXELS = 2
_MOST_NEIGHBOURED = 40


def label_facts(
    values: list[int],
    counts: Int64[np.ndarray, "label hu"],
    labels: UInt8[np.ndarray, "x y z"],
    image: Volume,
    body: Box,
) -> dict[int, LabelFacts]:
    """Measure every structure; `values` and `counts` are those of `hu_histograms`, `body` the body's bounding box."""
    voxel_ml = float(np.prod(image.spacing_mm)) / 1000
    start, stop = (np.array([getattr(side, end) for side in body]) for end in ("start", "stop"))
    found = {}
    for value, histogram, center in zip(values, counts, _centers(labels, values), strict=True):
        number = int(histogram.sum())
        x, y, z = (float(place) for place in (center + 0.5 - start) / (stop - start) - 0.5)
        mean = float((histogram * HU_OF_BIN).sum() / max(number, 1))
        first, last = np.flatnonzero(histogram)[[0, -1]]
        own = histogram[first : last + 1].copy()  # of all there are, most HU do not occur
        found[value] = LabelFacts(number, number * voxel_ml, mean, LOWEST_HU + int(first), own, (x, y, z))
    return found


def _centers(labels: UInt8[np.ndarray, "x y z"], values: list[int]) -> list[np.ndarray]:
    """Return the centroid of every label in voxels, from every few voxels where those meet it."""
    steps = [-(-length // _MOST_VOXELS_AN_AXIS) for length in labels.shape]
    thinned = labels[tuple(slice(None, None, step) for step in steps)]
    centers = []
    for value in values:
        found = np.argwhere(thinned == value)
        centers.append(found.mean(axis=0) * steps if len(found) else np.argwhere(labels == value).mean(axis=0))
    return centers


def lesion_facts(image: Volume, labels: UInt8[np.ndarray, "x y z"], label: int, lesion: LesionInstance) -> LesionFacts:
    """Measure a lesion on the scan's own grid."""
    box, mask = cut_instance(labels, lesion, label, margin_voxels=(0, 0, 0))
    x, y, z = (float(place) for place in (image.affine @ [*lesion.center_voxel, 1.0])[:3])
    sides = zip(lesion.bounding_box, image.spacing_mm, strict=True)
    return LesionFacts(
        label=label,
        center_mm=(x, y, z),
        num_voxels=lesion.num_voxels,
        diameter_mm=lesion.diameter_mm,
        extent_mm=max((side.stop - side.start) * mm for side, mm in sides),
        mean_hu=float(np.nan_to_num(image.array[box][mask]).mean(dtype=np.float64)),
    )


def lesion_neighbours(
    labels: UInt8[np.ndarray, "x y z"], lesions: list[tuple[int, LesionInstance]]
) -> dict[int, dict[int, int]]:
    """Count for each lesion label what lies within two voxels of its larger lesions, by label."""
    found: dict[int, np.ndarray] = {}
    for label, lesion in sorted(lesions, key=lambda pair: -pair[1].num_voxels)[:_MOST_NEIGHBOURED]:
        box, mask = cut_instance(labels, lesion, label, margin_voxels=(_SHELL_VOXELS,) * 3)
        shell = ndimage.binary_dilation(mask, iterations=_SHELL_VOXELS) & ~mask
        found[label] = found.get(label, np.zeros(256, dtype=np.int64)) + np.bincount(labels[box][shell], minlength=256)
    return {
        label: {int(value): int(counts[value]) for value in np.flatnonzero(counts) if value != label}
        for label, counts in found.items()
    }


def shown_voxel(labels: UInt8[np.ndarray, "x y z"], lesions: list[LesionInstance]) -> tuple[int, int, int]:
    """Return the largest lesion's centre, else the labels', else the scan's."""
    if lesions:
        return max(lesions, key=lambda lesion: lesion.num_voxels).center_voxel
    x, y, z = (
        int(np.average(np.arange(length), weights=profile)) if profile.any() else length // 2
        for length, profile in zip(labels.shape, (labels.any(axis=a) for a in ((1, 2), (0, 2), (0, 1))), strict=True)
    )
    return x, y, z
