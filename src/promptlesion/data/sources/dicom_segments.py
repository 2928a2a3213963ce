"""DICOM SEG objects: binary, fractional or label-map frames, placed by their own positions.

Pixels may be packed to single bits, deflated, or both.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from pydicom import Dataset
from pydicom.encaps import get_frame

from promptlesion.data.sources.dicom_pixels import frame_of
from promptlesion.data.sources.dicom_series import Series
from promptlesion.data.sources.dicom_slices import checked_directions, functional_group
from promptlesion.data.sources.label_map import is_background_name, structure_title
from promptlesion.data.spec import DatasetError

_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
_LABEL_MAP = "LABELMAP"
_BACKGROUND_CODE = ("125040", "DCM")
_BESIDE_VOXELS = 0.25
_STEP_TOLERANCE = 0.02


def segment_titles(dataset: Any) -> dict[int, str]:
    """Return the title of every segment that is not the background, by number; an empty one where it has none."""
    titles: dict[int, str] = {}
    for segment in dataset.SegmentSequence:
        number = int(segment.SegmentNumber)
        if number in titles:
            raise ValueError(f"segment number {number} is there twice")
        titles[number] = structure_title(segment.get("SegmentLabel"))
    background = _background(dataset)
    return {n: title for n, title in titles.items() if n not in background and not is_background_name(title)}


def segments_to_voxels(
    dataset: Any, path: Path, series: Series, names: dict[int, str], notes: list[str]
) -> Iterator[tuple[str, Int64[np.ndarray, " _"]]]:
    """Yield the flat voxel indices of every segment's part in every frame, on the series' slices."""
    described = {int(segment.SegmentNumber) for segment in dataset.SegmentSequence} | _background(dataset)
    faint, seen = set(), set()
    for frame in range(_num_frames(dataset, path)):
        for number, mask, is_faint in _masks(dataset, frame, path):
            if number not in described:
                raise DatasetError(
                    f"{path}: expected the segments {sorted(described)}, found number {number} in frame {frame + 1}"
                )
            if number in names and mask.any():
                seen.add(names[number])
                yield names[number], _flat_indices(dataset, frame, np.argwhere(mask), path, series)
            elif number in names and is_faint:
                faint.add(names[number])
    notes += [f"{name} is empty: no voxel of it reaches half of the full value" for name in sorted(faint - seen)]


def _num_frames(dataset: Any, path: Path) -> int:
    num_frames = int(dataset.get("NumberOfFrames") or 1)
    num_placed = len(dataset.get("PerFrameFunctionalGroupsSequence") or (None,))
    if num_placed != num_frames:
        raise DatasetError(f"{path}: expected a position for each of {num_frames} frames, found {num_placed}")
    return num_frames


def _masks(dataset: Any, frame: int, path: Path) -> Iterator[tuple[int, Bool[np.ndarray, "rows columns"], bool]]:
    """The segments in a frame: number, mask, and whether any pixel is above nothing."""
    pixels, kind = _frame(dataset, frame, path), str(dataset.get("SegmentationType") or "BINARY")
    if kind == _LABEL_MAP:
        yield from ((int(value), pixels == value, True) for value in np.unique(pixels))
        return
    identified = functional_group(dataset, frame, "SegmentIdentificationSequence")
    threshold = float(dataset.MaximumFractionalValue) / 2 if kind == "FRACTIONAL" else 1
    yield int(identified.ReferencedSegmentNumber), pixels >= threshold, bool(pixels.any())


def _background(dataset: Any) -> set[int]:
    """The numbers that are no segment: coded as background, and in a label map its padding, else 0."""
    coded = {
        int(segment.SegmentNumber)
        for segment in dataset.SegmentSequence
        for code in segment.get("SegmentedPropertyTypeCodeSequence") or ()
        if (str(code.get("CodeValue")), str(code.get("CodingSchemeDesignator"))) == _BACKGROUND_CODE
    }
    if str(dataset.get("SegmentationType")) != _LABEL_MAP:
        return coded
    padding = dataset.get("PixelPaddingValue")
    is_named = any(int(segment.SegmentNumber) == 0 for segment in dataset.SegmentSequence)
    return coded | ({0} if padding in (None, "") else {int(padding)}) | (set() if is_named else {0})


def _flat_indices(
    dataset: Any, frame: int, row_column: Int64[np.ndarray, "_ 2"], path: Path, series: Series
) -> Int64[np.ndarray, " _"]:
    origin, along_row, along_column = _geometry(dataset, frame, path)
    row, column = row_column[:, :1], row_column[:, 1:]
    indices = series.indices_of(origin + column * along_row + row * along_column)
    beside = np.abs(indices - np.rint(indices)).max()
    steps = np.stack([along_row, along_column]) @ np.linalg.inv(series.affine)[:3, :3].T
    uneven = np.abs(np.abs(steps).max(axis=1) - 1).max()
    if beside > _BESIDE_VOXELS or uneven > _STEP_TOLERANCE:
        raise DatasetError(
            f"{path}: expected segments on the pixels of {series.describe()}, found frame {frame + 1} "
            + (f"{beside:.2f} voxels beside them" if uneven <= _STEP_TOLERANCE else "with pixels of another size")
        )
    return flat_indices(np.rint(indices).astype(np.int64), path, series)


def flat_indices(indices: Int64[np.ndarray, "_ 3"], path: Path, series: Series) -> Int64[np.ndarray, " _"]:
    """Column, row and slice as one number a voxel; raises `DatasetError` for voxels beyond the series."""
    first = series.slices[0]
    shape = (first.num_columns, first.num_rows, len(series.slices))
    outside = ((indices < 0) | (indices >= np.array(shape))).any(axis=1)
    if outside.any():
        raise DatasetError(
            f"{path}: expected structures within {series.describe()}, found {int(outside.sum())} voxels outside it"
        )
    flat: np.ndarray = np.ravel_multi_index(tuple(indices.T), shape)
    return flat.astype(np.int64, copy=False)


def _geometry(
    dataset: Any, frame: int, path: Path
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    position = functional_group(dataset, frame, "PlanePositionSequence")
    orientation = functional_group(dataset, frame, "PlaneOrientationSequence")
    measures = functional_group(dataset, frame, "PixelMeasuresSequence")
    directions = checked_directions(None if orientation is None else orientation.get("ImageOrientationPatient"))
    if position is None or measures is None or directions is None:
        raise DatasetError(
            f"{path}: expected position, orientation and spacing of frame {frame + 1}, found them missing"
        )
    rows_mm, columns_mm = (float(value) for value in measures.PixelSpacing)
    return (
        np.array([float(value) for value in position.ImagePositionPatient]),
        np.array(directions[:3]) * columns_mm,
        np.array(directions[3:]) * rows_mm,
    )


def _frame(dataset: Any, frame: int, path: Path) -> Shaped[np.ndarray, "rows columns"]:
    """Decode one frame in any transfer syntax; raises `DatasetError` naming the file where it is truncated."""
    data = dataset.get("PixelData")
    if not data:
        raise DatasetError(f"{path}: expected a segmentation with pixels, found {_class_name(dataset)} without any")
    num_bits = int(dataset.BitsAllocated)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "") if hasattr(dataset, "file_meta") else ""
    if syntax == _DEFLATED_FRAMES:
        compressed = get_frame(data, frame, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        return _unpacked(zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed), 0, dataset, path)
    if num_bits == 1 and not dataset["PixelData"].is_undefined_length:
        return _unpacked(data, frame, dataset, path)
    return _decoded_bits(dataset, frame, path) if num_bits == 1 else frame_of(dataset, frame, path)


def _unpacked(data: bytes, frame: int, dataset: Any, path: Path) -> Shaped[np.ndarray, "rows columns"]:
    """A frame of native pixels; frames of single bits follow each other without a gap."""
    shape, num_bits = (int(dataset.Rows), int(dataset.Columns)), int(dataset.BitsAllocated)
    start, stop = (place * shape[0] * shape[1] * num_bits for place in (frame, frame + 1))
    part = np.frombuffer(data, np.uint8)[start // 8 : -(-stop // 8)]
    if len(part) < -(-stop // 8) - start // 8:
        raise DatasetError(
            f"{path}: expected {-(-stop // 8)} bytes of pixels up to frame {frame + 1}, found {len(data)}"
        )
    if num_bits != 1:
        return part.view(f"<u{num_bits // 8}").reshape(shape)
    bits = np.unpackbits(part, bitorder="little")[start % 8 :][: shape[0] * shape[1]]
    return bits.reshape(shape)


def _decoded_bits(dataset: Any, frame: int, path: Path) -> Shaped[np.ndarray, "rows columns"]:
    """A compressed frame of single bits: some writers compress a byte a pixel, others the packed bits."""
    shape = (int(dataset.Rows), int(dataset.Columns))
    packed_shape = (1, -(-shape[0] * shape[1] // 8))
    with suppress(DatasetError):
        return frame_of(_as_bytes(dataset, shape), frame, path)
    with suppress(DatasetError):
        return _unpacked(frame_of(_as_bytes(dataset, packed_shape), frame, path).tobytes(), 0, dataset, path)
    return frame_of(dataset, frame, path)


def _as_bytes(dataset: Any, shape: tuple[int, int]) -> Dataset:
    """The same compressed frames, told to be pixels of a byte each."""
    other = Dataset()
    other.file_meta = dataset.file_meta
    other.BitsAllocated, other.BitsStored, other.HighBit, other.Rows, other.Columns = 8, 8, 7, *shape
    other.NumberOfFrames, other.SamplesPerPixel, other.PixelRepresentation = (
        int(dataset.get("NumberOfFrames") or 1),
        1,
        0,
    )
    other.PhotometricInterpretation = "MONOCHROME2"
    other.add(dataset["PixelData"])
    return other


def _class_name(dataset: Any) -> str:
    kind = dataset.get("SOPClassUID")
    return str(getattr(kind, "name", kind) or "an object of unknown class")
