"""Slices of scans before and after a lesion was painted in, chosen and cut out for the figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from promptlesion.data.dataset import Dataset, DatasetError, read_case
from promptlesion.evaluation.lesions import LesionCrop, by_type, collect_lesions, read_sources


@dataclass(frozen=True, eq=False)
class SliceChange:
    """One axial slice of a scan before and after a lesion was painted into it; first axis x, second y."""

    case: str
    lesion_type: str
    mean_hu: float
    source: Float32[np.ndarray, "x y"]
    labels: UInt8[np.ndarray, "x y"]
    synthetic: Float32[np.ndarray, "x y"]
    lesion_mask: Bool[np.ndarray, "x y"]
    pixel_mm: tuple[float, float]


def montage_columns(
    synthetic: Dataset, source: Dataset, *, per_type: int = 3, field_voxels: int = 44
) -> list[SliceChange]:
    """Choose lesions to show and cut the field around each, in the axial slice where it is largest.

    Per type, from the larger half of its new lesions, evenly spread over that half, from different cases as
    far as there are such. The field grows where a lesion would fill more than 60 % of it.
    """
    names = [lesion.name for lesion in synthetic.spec.lesions]
    lesions = by_type(collect_lesions(synthetic, source=source, margin_voxels=0), names)
    chosen = [lesion for name in names for lesion in _spread(lesions[name], per_type)]
    return [slice_change(lesion, synthetic, source, field_voxels=field_voxels) for lesion in chosen]


def largest_change(synthetic: Dataset, source: Dataset) -> SliceChange:
    """Cut the whole axial slice through the largest new lesion, before and after."""
    lesions = collect_lesions(synthetic, source=source, margin_voxels=0)
    if not lesions:
        raise DatasetError(f"{synthetic.root}: expected at least one new lesion, found none")
    largest = max(lesions, key=lambda lesion: int(lesion.mask.sum()))
    return slice_change(largest, synthetic, source, field_voxels=None)


def display_window_hu(changes: Sequence[SliceChange], window_hu: tuple[float, float]) -> tuple[float, float]:
    """Narrow the networks' window to what the slices and lesions hold, so that soft tissue is told apart."""
    values = np.concatenate([array.ravel() for change in changes for array in (change.source, change.synthetic)])
    inside = np.concatenate([change.synthetic[change.lesion_mask] for change in changes])
    brightest = max(np.percentile(values, 99.7), np.percentile(inside, 98))
    low, high = np.clip([np.percentile(values, 2), brightest], *window_hu)
    return (float(low), float(high)) if high > low else window_hu


def slice_change(lesion: LesionCrop, synthetic: Dataset, source: Dataset, *, field_voxels: int | None) -> SliceChange:
    """Cut a lesion's axial slice out of both scans, `field_voxels` a side; without it the whole slice."""
    image, _ = read_case(synthetic, synthetic.case(lesion.case))
    source_name = read_sources(synthetic.root)[lesion.case]
    source_image, source_labels = read_case(source, source.case(source_name))
    depth = int(lesion.mask.sum(axis=(0, 1)).argmax())
    mask = np.zeros(image.shape[:2], dtype=bool)
    start_x, start_y, start_z = lesion.start_voxel
    size_x, size_y = lesion.mask.shape[:2]
    mask[start_x : start_x + size_x, start_y : start_y + size_y] = lesion.mask[:, :, depth]
    window = (slice(None), slice(None))
    if field_voxels is not None:
        side = max(field_voxels, int(np.ceil(max(size_x, size_y) / 0.6)))
        window = (
            _field(start_x + size_x // 2, side, mask.shape[0]),
            _field(start_y + size_y // 2, side, mask.shape[1]),
        )
    at = (*window, start_z + depth)
    return SliceChange(
        case=lesion.case,
        lesion_type=lesion.lesion_type,
        mean_hu=lesion.mean_hu,
        source=source_image.array[at].astype(np.float32),
        labels=source_labels.array[at],
        synthetic=image.array[at].astype(np.float32),
        lesion_mask=mask[window],
        pixel_mm=image.spacing_mm[:2],
    )


def _spread(lesions: Sequence[LesionCrop], count: int) -> list[LesionCrop]:
    larger = sorted(lesions, key=lambda lesion: -int(lesion.mask.sum()))[: max(count, (len(lesions) + 1) // 2)]
    seen: Counter[str] = Counter()
    rounds = []
    for lesion in larger:
        rounds.append(seen[lesion.case])
        seen[lesion.case] += 1
    order = [larger[index] for index in np.argsort(rounds, kind="stable")]
    num_first = max(min(sum(turn == 0 for turn in rounds), len(order)), min(count, len(order)))
    picks = np.linspace(0, num_first - 1, min(count, num_first)).round().astype(int)
    return [order[pick] for pick in picks]


def _field(center: int, side: int, length: int) -> slice:
    side = min(side, length)
    start = min(max(center - side // 2, 0), length - side)
    return slice(start, start + side)
