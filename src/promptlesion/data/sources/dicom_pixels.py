"""The voxels of a DICOM series in HU, and tilted stacks made straight."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import RLELossless
from scipy import ndimage

from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import DICOM_ERRORS, Slice, leniently, read_dicom
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import LPS_TO_RAS

AIR_HU = -1024
_NO_TISSUE_HU = -1500  # scanners put -2000, -2048 or -3024 outside their field of view
_BECAME_AIR = f"padding outside the field of view became air, {AIR_HU} HU"
_KEPT = "the padding value that is declared is one that tissue has: what has it was kept as it is"
_AIR_AT_MOST_HU = -900
_METAL_HU = 4096
_MOST_HU = 31000  # the extended scale of CT ends at 30710; 32767 is a marker
_JPEG_SYNTAXES = "1.2.840.10008.1.2.4."
_ITEM = b"\xfe\xff\x00\xe0"
_ZEROS = bytes(8)  # which RLE has as a run, and hardly ever so at its end
_END_OF_IMAGE = b"\xff\xd9"


def frame_of(dataset: Any, frame: int, path: Any, **options: Any) -> Shaped[np.ndarray, "rows columns"]:
    """Decode one frame; raises `DatasetError` naming the file where it is truncated or no decoder is there."""
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    try:
        with leniently():
            _check_whole(dataset, frame, num_frames)
            if dataset.file_meta.TransferSyntaxUID == RLELossless and dataset.BitsAllocated == 8:
                options["decoding_plugin"] = "pydicom"  # others fill up a mask that ends too early
            pixels: np.ndarray = pixel_array(dataset, index=frame if num_frames > 1 else None, **options)
    except DICOM_ERRORS as error:
        syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        name = syntax.name if syntax is not None and hasattr(syntax, "name") else "unknown"
        lacks_decoder = "missing dependencies" in str(error)
        found = "no decoder for them installed" if lacks_decoder else "none that can be decoded"
        reason = " ".join(str(error).split()).partition("missing dependencies: ")[2 if lacks_decoder else 0]
        raise DatasetError(f"{path}: expected pixels ({name}), found {found}: {reason[:200]}") from error
    return pixels


def series_voxels(series: Series) -> tuple[Shaped[np.ndarray, "column row slice"], list[str]]:
    """The series in HU, int16 where they are whole, as it is in its files, and what to know of its padding."""
    first = series.slices[0]
    has_whole_rescale = all(one.slope.is_integer() and one.intercept.is_integer() for one in series.slices)
    shape = (first.num_columns, first.num_rows, len(series.slices))
    voxels = np.empty(shape, dtype=np.int16 if has_whole_rescale else np.float32)
    notes: set[str] = set()
    try:
        for index, hu, found in _each_hounsfield(series.slices):
            voxels[:, :, index] = hu.T
            notes |= found
    except DatasetError as error:
        raise DatasetError(f"{error}, in {series.describe()}") from error
    if voxels.dtype.kind == "f" and np.array_equal(voxels, np.rint(voxels)):
        voxels = voxels.astype(np.int16)
    return voxels, sorted(notes)


def contents_of(slices: Sequence[Slice]) -> dict[tuple[Path, int], bytes]:
    """What slices show, by file and frame: equal for equal HU, to a thousandth, however they are stored."""
    return {
        (slices[index].path, slices[index].frame): sha256(np.rint(hu * 1000.0).astype(np.int64).tobytes()).digest()
        for index, hu, _ in _each_hounsfield(slices)
    }


def _each_hounsfield(slices: Sequence[Slice]) -> Iterator[tuple[int, Shaped[np.ndarray, "rows columns"], set[str]]]:
    """Yield the index, the HU and what to know of its padding, for every slice; a file of many is read once."""
    order = sorted(range(len(slices)), key=lambda index: (slices[index].path, slices[index].frame))
    for path, indices in groupby(order, key=lambda index: slices[index].path):
        dataset = read_dicom(path)
        for index in indices:
            yield index, *_hounsfield(dataset, slices[index])


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
    return np.asarray(LPS_TO_RAS @ affine)


def _straight_box(series: Series) -> tuple[Float64[np.ndarray, "2"], tuple[int, int]]:
    shifts, first = np.array(series.shifts), series.slices[0]
    low = np.floor(shifts.min(axis=0))
    columns, rows = (int(number) for number in np.ceil(shifts.max(axis=0)) - low)
    return low, (first.num_columns + columns, first.num_rows + rows)


def _hounsfield(dataset: Any, one: Slice) -> tuple[Shaped[np.ndarray, "rows columns"], set[str]]:
    stored = frame_of(dataset, one.frame, one.path, correct_unused_bits=False)
    if stored.shape != one.shape:
        raise DatasetError(
            f"{one.path}: expected {one.num_rows} rows and {one.num_columns} columns, found {stored.shape}"
        )
    values = _without_unused_bits(dataset, stored, one.path)
    hu = values * np.float64(one.slope) + one.intercept
    declared = _declared_padding(dataset, stored.dtype)
    is_tissue = any(_AIR_AT_MOST_HU < number * one.slope + one.intercept < _METAL_HU for number in declared)
    is_padding = hu < _NO_TISSUE_HU
    for found in () if is_tissue or not declared else (stored, values):
        is_padding |= (found >= declared[0]) & (found <= declared[1])
    hu[is_padding] = AIR_HU
    if hu.max() > _MOST_HU:
        raise DatasetError(
            f"{one.path}: expected HU, at most {_MOST_HU}, found up to {hu.max():g} in "
            f"{int((hu > _MOST_HU).sum())} pixels: padding that PixelPaddingValue does not declare, or no CT in HU"
        )
    return hu, {note for note, is_so in ((_BECAME_AIR, is_padding.any()), (_KEPT, is_tissue)) if is_so}


def _without_unused_bits(
    dataset: Any, stored: Shaped[np.ndarray, "rows columns"], path: Path
) -> Shaped[np.ndarray, "rows columns"]:
    """Stored values by the bits that hold them: old overlays lie in the others, compressed with them by some."""
    num_bits = 8 * stored.dtype.itemsize
    num_stored = int(dataset.get("BitsStored") or num_bits)
    if stored.dtype.kind not in "iu" or not 0 < num_stored < num_bits:
        return stored
    values = (stored << (num_bits - num_stored)) >> (num_bits - num_stored)
    if int(dataset.get("HighBit") or 0) != num_stored - 1 and not np.array_equal(values, stored):
        raise DatasetError(
            f"{path}: expected the high bit {num_stored - 1} of {num_stored} bits, found {dataset.HighBit}"
        )
    return values


def _check_whole(dataset: Any, frame: int, num_frames: int) -> None:
    """Raise `ValueError` where pixels end too early or too late, which decoders fill up, or skip, without a word."""
    pixels, syntax = dataset.get("PixelData") or b"", dataset.file_meta.TransferSyntaxUID
    if not pixels or dataset.get("BitsAllocated") == 1:
        return
    if not syntax.is_encapsulated:
        expected = get_expected_length(dataset)
        is_encoded = dataset["PixelData"].is_undefined_length or pixels[:4] == _ITEM
        if is_encoded or len(pixels) >= expected + max(expected // num_frames, 2):
            raise ValueError(f"{len(pixels)} bytes of pixels, or compressed ones, in place of {expected}")
    else:
        encoded = get_frame(pixels, frame, number_of_frames=num_frames)
        is_jpeg_cut = syntax.startswith(_JPEG_SYNTAXES) and not encoded.rstrip(b"\0").endswith(_END_OF_IMAGE)
        is_blanked = syntax == RLELossless and dataset.BitsAllocated != 8 and encoded.endswith(_ZEROS)
        if is_jpeg_cut or is_blanked:
            raise ValueError(f"a truncated codestream of {len(encoded)} bytes, without its end")


def _declared_padding(dataset: Any, dtype: np.dtype) -> list[int]:
    """The lowest and highest stored value that a slice declares to be padding, if it does."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if value in (None, ""):
        return []
    # often written with the other sign convention than the pixels'
    return sorted(int(np.int64(int(one)).astype(dtype)) for one in (value, value if limit in (None, "") else limit))
