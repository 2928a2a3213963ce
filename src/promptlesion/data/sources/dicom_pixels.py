"""The voxels of a DICOM series in HU, and tilted stacks made straight."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from pydicom.pixels import pixel_array
from scipy import ndimage

from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import Slice, leniently, read_dicom
from promptlesion.data.sources.extra import DICOM_ERRORS
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import LPS_TO_RAS

AIR_HU = -1024
_NO_TISSUE_HU = -1500  # scanners put -2000, -2048 or -3024 outside their field of view
_INT16 = np.iinfo(np.int16)


def frame_of(dataset: Any, frame: int, path: Any) -> Shaped[np.ndarray, "rows columns"]:
    """Decode one frame; raises `DatasetError` naming the file where it is truncated or no decoder is there."""
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    try:
        with leniently():
            pixels: np.ndarray = pixel_array(dataset, index=frame if num_frames > 1 else None)
    except DICOM_ERRORS as error:
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        hint = "; pip install 'promptlesion[dicom]' brings the decoders" if "plugins" in str(error) else ""
        reason = " ".join(str(error).split())[:200]
        name = syntax.name if syntax is not None and hasattr(syntax, "name") else "unknown"
        raise DatasetError(
            f"{path}: expected pixels ({name}), found none that can be decoded: {reason}{hint}"
        ) from error
    return pixels


def series_voxels(series: Series) -> tuple[Shaped[np.ndarray, "column row slice"], bool]:
    """The series in HU, int16 where they are whole, as it is in its files, and whether padding became air."""
    first = series.slices[0]
    has_whole_rescale = all(one.slope.is_integer() and one.intercept.is_integer() for one in series.slices)
    shape = (first.num_columns, first.num_rows, len(series.slices))
    voxels = np.empty(shape, dtype=np.int16 if has_whole_rescale else np.float32)
    has_padding = False
    opened: tuple[Any, Any] = (None, None)
    for index, one in enumerate(series.slices):
        if opened[0] != one.path:
            opened = (one.path, read_dicom(one.path))
        hu, is_padded = _hounsfield(opened[1], one)
        voxels[:, :, index] = hu.T
        has_padding = has_padding or is_padded
    if voxels.dtype.kind == "f" and np.array_equal(voxels, np.rint(voxels)):
        voxels = voxels.astype(np.int16)
    return voxels, has_padding


def straightened(
    voxels: Shaped[np.ndarray, "column row slice"], series: Series, *, order: int, fill: int
) -> Shaped[np.ndarray, "i j k"]:
    """Move each slice of a tilted stack in its own plane onto a grid at right angles, large enough to lose nothing.

    Only neighbours within a slice are mixed (`order` 1), or none (`order` 0, for labels).
    """
    low, size = _straight_box(series)
    straight = np.full((*size, voxels.shape[2]), fill, dtype=voxels.dtype)
    columns, rows = voxels.shape[:2]
    for index, shift in enumerate(np.array(series.shifts)):
        canvas = np.full(size, fill, dtype=np.float32)
        canvas[:columns, :rows] = voxels[:, :, index]
        moved = ndimage.shift(canvas, shift - low, order=order, mode="grid-constant", cval=fill)
        straight[:, :, index] = np.rint(moved) if voxels.dtype.kind in "iu" else moved
    return straight


def straight_affine(series: Series) -> Float64[np.ndarray, "4 4"]:
    """Indices of the straight grid to world millimetres, RAS."""
    affine = series.affine
    if series.is_tilted:
        low, _ = _straight_box(series)
        affine[:3, 3] += affine[:3, :2] @ low
    ras: np.ndarray = LPS_TO_RAS @ affine
    return ras


def _straight_box(series: Series) -> tuple[Float64[np.ndarray, "2"], tuple[int, int]]:
    shifts, first = np.array(series.shifts), series.slices[0]
    low = np.floor(shifts.min(axis=0))
    columns, rows = (int(number) for number in np.ceil(shifts.max(axis=0)) - low)
    return low, (first.num_columns + columns, first.num_rows + rows)


def _hounsfield(dataset: Any, one: Slice) -> tuple[Shaped[np.ndarray, "rows columns"], bool]:
    stored = frame_of(dataset, one.frame, one.path)
    if stored.shape != (one.num_rows, one.num_columns):
        raise DatasetError(
            f"{one.path}: expected {one.num_rows} rows and {one.num_columns} columns, found {stored.shape}"
        )
    is_padding = _padding(dataset, stored)
    hu = stored * np.float64(one.slope) + one.intercept
    is_padding |= hu < _NO_TISSUE_HU
    hu[is_padding] = AIR_HU
    return hu.clip(_INT16.min, _INT16.max), bool(is_padding.any())


def _padding(dataset: Any, stored: Shaped[np.ndarray, "rows columns"]) -> Shaped[np.ndarray, "rows columns"]:
    value = dataset.get("PixelPaddingValue")
    if value in (None, ""):
        return np.zeros(stored.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    bounds = sorted(_as_stored(number, stored.dtype) for number in (value, value if limit in (None, "") else limit))
    return (stored >= bounds[0]) & (stored <= bounds[1])


def _as_stored(value: Any, dtype: np.dtype) -> int:
    """Padding values are often written with the other sign convention than the pixels'."""
    number, bits = int(value), 8 * dtype.itemsize
    number %= 1 << bits
    return number - (1 << bits) if dtype.kind == "i" and number >= 1 << (bits - 1) else number
