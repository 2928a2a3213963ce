"""Is a case what it claims to be: one grid, Hounsfield units, known labels?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

from promptlesion.data.nifti_geometry import corners_apart_mm, is_same_grid
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import Volume

_AFFINE_TOLERANCE_MM = 1e-3
_LABEL_TOLERANCE = 1e-3  # a header that rescales to whole numbers rounds them
_SPACING_LIMITS_MM = (0.05, 15.0)
_SMALLEST_HU_SPAN = 20.0
_SMALLEST_SHARE_BELOW_0 = 1e-3
_SHARE_OF_A_SCAN = 0.5  # less is a masked organ, which may well hold no fat and no air
_SMALLEST_SLICE = 64
_STORED_TISSUE = 900  # soft tissue, 1024 too high
_LEAST_AIR_HU, _AIR_HU = -1100, -900
_MOST_GREY = 255
_PADDING_HU = -1000.0
_INT16 = np.iinfo(np.int16)


def check_same_grid(case: str, image: Volume, labels: Volume, *, of: str = "the CT") -> None:
    """Raise `DatasetError` unless the label map lies where the CT does, but for rounding: a tenth of a voxel anywhere.

    `of` is what the grid belongs to, for the message.
    """
    if labels.shape == image.shape and is_same_grid(image.shape, image.affine, labels.affine):
        return
    spacings = (np.array(labels.spacing_mm), np.array(image.spacing_mm))
    if np.abs(spacings[0] - spacings[1]).max() > _AFFINE_TOLERANCE_MM:
        found, expected = (_rounded(spacing) for spacing in spacings)
        raise DatasetError(f"{case}: label spacing {found} mm differs from {of}'s {expected} mm")
    if labels.shape != image.shape:
        raise DatasetError(f"{case}: label shape {labels.shape} voxels differs from {of}'s {image.shape} voxels")
    difference = np.abs(labels.affine - image.affine)
    if difference[:3, :3].max() > _AFFINE_TOLERANCE_MM:
        turned, straight = ([_rounded(row) for row in volume.affine[:3, :3]] for volume in (labels, image))
        raise DatasetError(f"{case}: label directions {turned} differ from {of}'s {straight}")
    if difference[:3, 3].max() > _AFFINE_TOLERANCE_MM:
        found, expected = (_rounded(volume.affine[:3, 3]) for volume in (labels, image))
        raise DatasetError(f"{case}: label origin {found} mm differs from {of}'s {expected} mm")
    apart_mm = corners_apart_mm(image.shape, image.affine, labels.affine)
    raise DatasetError(f"{case}: a corner of the label map lies {apart_mm:.3f} mm away from {of}'s")


def on_the_grid_of(case: str, image: Volume, labels: Volume, *, of: str = "the CT") -> Volume:
    """The label map with the CT's geometry; raises `DatasetError` where its own differs by more than rounding."""
    check_same_grid(case, image, labels, of=of)
    return image.with_array(labels.array)


def check_spacing(case: str, image: Volume) -> None:
    """Raise `DatasetError` for voxels that no CT has, which are those of another unit."""
    low, high = _SPACING_LIMITS_MM
    if not all(low <= side <= high for side in image.spacing_mm):
        found = " x ".join(f"{side:.3g}" for side in image.spacing_mm)
        raise DatasetError(
            f"{case}: expected voxels of {low:g} to {high:g} mm, found {found} mm: is another unit meant?"
        )


def check_hounsfield(case: str, image: Shaped[np.ndarray, "x y z"], places: Sequence[str] | None = None) -> None:
    """Raise `DatasetError` for voxels that are no Hounsfield units: NaN, scaled, 8 bit, without intercept.

    Slices along the last axis are looked at one by one, without what is padding in them, and `places` says what a
    message calls them.
    """
    with np.errstate(invalid="ignore"):
        low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        num_nan, num_infinite = int(np.isnan(image).sum()), int(np.isinf(image).sum())
        raise DatasetError(f"{case}: expected finite HU, found {num_nan} NaN and {num_infinite} infinite voxels")
    if low == high:
        raise DatasetError(f"{case}: expected the HU of a CT, found {low:g} in every voxel")
    if low < _INT16.min or high > _INT16.max:
        raise DatasetError(f"{case}: expected HU between {_INT16.min} and {_INT16.max}, found {low:g} to {high:g}")
    slices = _without_padding(image, low, high)
    seen = [one for one in slices if one.share >= _SHARE_OF_A_SCAN]
    if seen and sum(one.share for one in seen) >= _SHARE_OF_A_SCAN * len(slices):
        _check_range(case, seen, image, low)
    is_large = image[:, :, 0].size >= _SMALLEST_SLICE
    is_odd = [one.share >= _SHARE_OF_A_SCAN and one.low >= 0 and one.high >= _STORED_TISSUE for one in slices]
    if is_large and 0 < sum(is_odd) < len(seen):
        index = is_odd.index(True)
        raise DatasetError(
            f"{case}: expected HU in every slice, fat and air below 0, found {slices[index].low:g} to "
            f"{slices[index].high:g} in {places[index] if places else f'slice {index + 1} of {len(slices)}'}: "
            "its rescale intercept is not that of the others"
        )


@dataclass(frozen=True)
class _Slice:
    """What of a slice is no padding: its share, range and share of values below 0."""

    share: float
    low: float
    high: float
    below_0: float


def _without_padding(image: Shaped[np.ndarray, "x y z"], lowest: float, highest: float) -> list[_Slice]:
    """The slices along z, a plane across them at a time; padding is below what air is, or the lowest value of air."""
    floor = max(lowest, _PADDING_HU) if lowest <= _AIR_HU else lowest - 1
    num_seen, num_below_0 = np.zeros((2, image.shape[2]), dtype=np.int64)
    low, high = np.full(image.shape[2], highest), np.full(image.shape[2], lowest)
    for plane in image:
        is_seen = plane > floor
        num_seen += is_seen.sum(axis=0)
        num_below_0 += (is_seen & (plane < 0)).sum(axis=0)
        low = np.minimum(low, np.where(is_seen, plane, image.dtype.type(highest)).min(axis=0))
        high = np.maximum(high, plane.max(axis=0))
    num_pixels = image.shape[0] * image.shape[1]
    return [
        _Slice(seen / num_pixels, float(least), float(most), below / max(seen, 1))
        for seen, below, least, most in zip(num_seen.tolist(), num_below_0.tolist(), low, high, strict=True)
    ]


def _check_range(case: str, slices: Sequence[_Slice], image: Shaped[np.ndarray, "x y z"], lowest: float) -> None:
    low, high = min(one.low for one in slices), max(one.high for one in slices)
    found = f"{low:g} to {high:g}"
    if high - low <= _SMALLEST_HU_SPAN:
        raise DatasetError(
            f"{case}: expected HU, from about -1000 in air to above 1000 in bone, found {found}: these "
            "intensities are scaled or standardised; export the scan in HU"
        )
    if float(np.mean([one.below_0 for one in slices])) >= _SMALLEST_SHARE_BELOW_0:
        return
    if _LEAST_AIR_HU <= lowest <= _AIR_HU and _MOST_GREY < high < _STORED_TISSUE:
        return  # what was taken for padding is air of a single value, as made-up scans have it
    if low >= 0 and high <= _MOST_GREY:
        raise DatasetError(f"{case}: expected HU, fat and air below 0, found {found}: these are 8-bit grey values")
    share = float((image == max(low, lowest)).mean())
    raise DatasetError(
        f"{case}: expected HU, fat and air below 0, found {found} with {share:.0%} of the voxels at "
        f"{low:g}: these are stored values without their rescale intercept (usually -1024), or clipped HU"
    )


def checked_labels(
    case: str, labels: Shaped[np.ndarray, "x y z"], known: Collection[int]
) -> UInt8[np.ndarray, "x y z"]:
    """The label map as uint8, where its values are whole but for rounding; raises `DatasetError` for unknown ones."""
    values = np.array(label_values(labels), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        is_known = np.isin(np.rint(values), list(known)) & (np.abs(values - np.rint(values)) <= _LABEL_TOLERANCE)
    unknown = values[~is_known].tolist()
    if unknown:
        listed = ", ".join(f"{value:.8g}" for value in unknown[:8]) + (", …" if len(unknown) > 8 else "")
        raise DatasetError(f"{case}: expected the label values {sorted(known)} of dataset.json, found {listed}")
    return whole_labels(case, labels)


def whole_labels(name: str, labels: Shaped[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z"]:
    """The label map as uint8, however it was stored; raises `DatasetError` for values that are no labels."""
    if labels.dtype == np.uint8:
        return labels
    whole = np.empty(labels.shape, dtype=np.uint8)
    wrong = []
    for plane, as_bytes in zip(labels, whole, strict=True):
        with np.errstate(invalid="ignore"):
            as_bytes[...] = np.rint(plane)
        wrong.append(plane[~(np.abs(plane.astype(np.float64) - as_bytes) <= _LABEL_TOLERANCE)])
    found = np.concatenate(wrong)
    if found.size:
        listed = ", ".join(f"{value:.8g}" for value in np.unique(found)[:5].tolist())
        raise DatasetError(f"{name}: expected whole label values from 0 to 255, found {listed} in {found.size} voxels")
    return whole


def label_values(labels: Shaped[np.ndarray, "x y z"]) -> list[int | float]:
    """Return the values of a label map, a plane at a time: counting takes eight bytes a voxel."""
    is_found = np.zeros(256, dtype=bool)
    others = []
    for plane in labels:
        with np.errstate(invalid="ignore"):
            whole = plane.astype(np.uint8, copy=False)
        if np.array_equal(whole, plane):
            is_found |= np.bincount(whole.ravel(), minlength=256) > 0
        else:
            others.append(np.unique(plane))
    values: list[int | float] = np.unique(
        np.concatenate([np.flatnonzero(is_found).astype(labels.dtype), *others])
    ).tolist()
    return values


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
