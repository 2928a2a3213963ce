"""The pixels of a segmentation's frames, which may be packed to single bits, deflated, or both."""

import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from pydicom import Dataset
from pydicom.encaps import get_frame

from promptlesion.data.sources.dicom_pixels import frame_of
from promptlesion.data.spec import DatasetError

_DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


def segment_frame(dataset: Any, frame: int, path: Path) -> Shaped[np.ndarray, "rows columns"]:
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
