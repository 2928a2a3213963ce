"""NIfTI files as streams of slices: a large scan is in memory once, while it is read and while it is written."""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from nibabel.orientations import apply_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

RAS_ORIENTATION = np.array([[0, 1], [1, 1], [2, 1]])

_NIFTI1_HEADER_BYTES, _NIFTI2_HEADER_BYTES = 348, 540
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_INFLATION = 1033  # deflate makes at most this many bytes out of one
_BYTES_AT_ONCE = 2**24
_NOT_GZIP = ("Not a gzipped file", "Unknown compression method")
"""What Python says of bytes after a whole compressed stream that do not begin another one."""


class VolumeError(ValueError):
    """A file that cannot be read or written as a volume; the message names it and says what was found."""

    def __init__(self, message: str, code: str = "unreadable") -> None:
        """Take the message, and the word that `check` has for the fault."""
        super().__init__(message)
        self.code = code


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a NIfTI file, compressed or not; what goes wrong while it is read is told as damage to the file."""
    if not path.is_file():
        raise VolumeError(f"{path}: expected a NIfTI file, found none")
    with path.open("rb") as file:
        magic = file.read(len(_GZIP_MAGIC))
        if not magic:
            raise VolumeError(f"{path}: expected a NIfTI file, found an empty one (0 bytes)")
        file.seek(0)
        try:
            if magic == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream
            else:
                yield file
        except VolumeError:
            raise
        except (EOFError, ValueError, gzip.BadGzipFile, zlib.error, HeaderDataError, WrapStructError) as error:
            raise VolumeError(
                f"{path}: expected a whole NIfTI file, found a truncated or damaged one ({error})"
            ) from error


def read_header(stream: io.BufferedIOBase, path: Path) -> nib.Nifti1Header:
    """Return the header of either version of the format; extensions are passed over."""
    head = stream.read(_NIFTI2_HEADER_BYTES)
    is_nifti2 = _NIFTI2_HEADER_BYTES in (int.from_bytes(head[:4], order) for order in ("little", "big"))
    header = nib.Nifti2Header(head) if is_nifti2 else nib.Nifti1Header(head[:_NIFTI1_HEADER_BYTES])
    if not bytes(header["magic"].item()).startswith(b"n+"):
        raise VolumeError(f"{path}: expected header and voxels in one NIfTI file, found a header alone")
    return header


def read_voxels(
    stream: io.BufferedIOBase, header: nib.Nifti1Header, orientation: np.ndarray, path: Path
) -> tuple[Shaped[np.ndarray, "x y z"], bool]:
    """Read some slices at a time, straight into the RAS+ array: a large scan is in memory once.

    Returns also whether bytes follow that are none of the volume's.
    """
    stored, shape = header.get_data_dtype(), tuple(int(side) for side in header.get_data_shape())[:3]
    if stored.kind not in "iuf":
        raise VolumeError(f"{path}: expected one number a voxel, found voxels of type {stored}")
    slope, intercept = header.get_slope_inter()
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    is_rescaled = (slope, intercept) != (1.0, 0.0)
    keeps_integers = stored.kind in "iu" and not is_rescaled
    num_bytes = math.prod(shape) * stored.itemsize
    if num_bytes > _MOST_INFLATION * path.stat().st_size:
        raise VolumeError(f"{path}: expected {shape} voxels, found a truncated file ({path.stat().st_size} bytes)")
    ras_shape = [shape[int(np.flatnonzero(orientation[:, 0] == axis)[0])] for axis in range(3)]
    array = np.empty(ras_shape, stored.newbyteorder("=") if keeps_integers else np.float32)
    in_file_order = apply_orientation(array, ornt_transform(RAS_ORIENTATION, orientation))
    slices_at_once = max(1, _BYTES_AT_ONCE // (shape[0] * shape[1] * stored.itemsize))
    offset = header.get_data_offset()
    if not 0 <= offset <= _MOST_INFLATION * path.stat().st_size:
        raise VolumeError(f"{path}: expected voxels within the file, found them at byte {offset}")
    stream.seek(offset)
    for start in range(0, shape[2], slices_at_once):
        part = in_file_order[:, :, start : start + slices_at_once]
        content = stream.read(part.size * stored.itemsize)
        if len(content) < part.size * stored.itemsize:
            raise VolumeError(f"{path}: expected {shape} voxels, found a truncated file (slice {start} is not whole)")
        values = np.frombuffer(content, stored).reshape(part.shape, order="F")
        with np.errstate(over="ignore", invalid="ignore"):
            part[...] = apply_read_scaling(values, np.float64(slope), np.float64(intercept)) if is_rescaled else values
    return array, _has_more(stream)


def _has_more(stream: io.BufferedIOBase) -> bool:
    """Read to the end, where a compressed file's checksum is; what follows that is no damage, but is told."""
    num_bytes = 0
    try:
        while content := stream.read(_BYTES_AT_ONCE):
            num_bytes += len(content)
    except gzip.BadGzipFile as error:
        if not str(error).startswith(_NOT_GZIP):
            raise
        return True
    return num_bytes > 0
