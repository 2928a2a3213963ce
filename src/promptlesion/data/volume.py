"""Volumes that carry their geometry: NIfTI files of any orientation outside, RAS+ arrays inside."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from promptlesion.data.nifti_file import (
    RAS_ORIENTATION,
    VolumeError,
    opened,
    read_header,
    read_voxels,
)
from promptlesion.data.nifti_geometry import (
    SHEAR_TOLERANCE,
    affine_of,
    checked_affine,
    checked_geometry,
    shear_note,
    shear_of,
    straightened,
)
from promptlesion.training.atomic import written_whole

__all__ = [
    "LPS_TO_RAS",
    "SHEAR_TOLERANCE",
    "Volume",
    "VolumeError",
    "as_first_version",
    "checked_affine",
    "file_slice_axis",
    "oriented_volume",
    "read_description",
    "read_shape",
    "read_stored_type",
    "read_volume",
    "write_volume",
]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world axes of DICOM and ITK to those of NIfTI, and back."""

_MAX_DESCRIPTION_BYTES = 79
_STORABLE_TYPES = [
    np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in RAS+ order together with where they lie in the world.

    `affine` maps indices of `array` to world millimetres. `source_header` is the geometry of the file the
    volume came from (nothing else of that file), in millimetres and with axes at right angles, so that writing restores
    its axis order, affine and form codes exactly. `notes` are what the reader took otherwise than the file says or had
    to assume, each under the word that `check` has for it; they name no file.
    """

    array: Shaped[np.ndarray, "x y z"]
    affine: Float64[np.ndarray, "4 4"]
    source_header: nib.Nifti1Header | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along x, y and z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def file_affine(self) -> Float64[np.ndarray, "4 4"]:
        """From indices in the file's axis order to world millimetres; `affine` where the volume came from none."""
        return self.affine if self.source_header is None else affine_of(self.source_header)

    @property
    def shear(self) -> float:
        """The largest cosine between two axes: 0 at right angles."""
        return shear_of(self.affine)

    def with_array(self, array: Shaped[np.ndarray, "x y z"]) -> "Volume":
        """The same geometry with other voxels, say a label map or a prediction on the grid of its CT."""
        if array.shape != self.shape:
            raise VolumeError(f"expected an array of shape {self.shape} on this grid, found {array.shape}")
        return replace(self, array=array)


def read_volume(path: Path) -> Volume:
    """Read a 3-D NIfTI file of any orientation as a RAS+ volume; an oblique affine stays oblique.

    Integers stay as they are stored when the file asks for no rescaling, all else becomes float32. Raises
    `VolumeError` for what is missing, empty, truncated, not 3-D, or has no usable affine.
    """
    with opened(path) as stream:
        header = read_header(stream, path)
        geometry, notes = checked_geometry(header, path)
        file_affine, shape = affine_of(geometry), geometry.get_data_shape()
        orientation = io_orientation(file_affine)
        array, has_more = read_voxels(stream, header, orientation, path)
        if has_more:
            notes["trailing-bytes"] = "bytes after the last voxel, which are none of the volume's, left unread"
        if path.name.endswith(".gz") and not isinstance(stream, gzip.GzipFile):
            notes["not-compressed"] = "a file named .gz that is not compressed, read as it is"
        return Volume(array, file_affine @ inv_ornt_aff(orientation, shape), geometry, notes)


def oriented_volume(array: Shaped[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]) -> Volume:
    """Return voxels in any axis order as a RAS+ volume that is written back in the order given.

    `affine` maps i, j and k to world millimetres, RAS; NIfTI keeps it in single precision. A shear of rounding is
    straightened, as in a NIfTI file.
    """
    straight = straightened(affine, array.shape)
    notes = {} if straight is affine else {"straightened": shear_note(affine)}
    header = _new_header(straight)
    header.set_data_shape(array.shape)
    stored = affine_of(header)
    orientation = io_orientation(stored)
    return Volume(
        array=np.ascontiguousarray(apply_orientation(array, orientation)),
        affine=stored @ inv_ornt_aff(orientation, array.shape),
        source_header=header,
        notes=notes,
    )


def as_first_version(volume: Volume) -> Volume:
    """Return a volume that is written as NIfTI-1, the only version that ITK reads, if it came as NIfTI-2."""
    if not isinstance(volume.source_header, nib.Nifti2Header):
        return volume
    header, shape = _new_header(volume.file_affine), volume.source_header.get_data_shape()
    header.set_data_shape(shape)
    affine = affine_of(header) @ inv_ornt_aff(io_orientation(affine_of(header)), shape)
    notes = {**volume.notes, "nifti-2": "NIfTI-2, which ITK does not read, written as NIfTI-1"}
    return replace(volume, affine=affine, source_header=header, notes=notes)


def read_shape(path: Path) -> tuple[int, ...]:
    """Return how many voxels a NIfTI volume has along each axis, in the order it stores them; reads the header only."""
    with opened(path) as stream:
        shape = checked_geometry(read_header(stream, path), path)[0].get_data_shape()
    return tuple(int(length) for length in shape)


def read_stored_type(path: Path) -> np.dtype[Any]:
    """Return the type of number in which a NIfTI file stores its voxels; reads the header only."""
    with opened(path) as stream:
        stored: np.dtype[Any] = read_header(stream, path).get_data_dtype()
    return stored


def read_description(path: Path) -> str:
    """Return what the header of a NIfTI file says of itself, as `write_volume` was given it; reads the header only."""
    with opened(path) as stream:
        return bytes(read_header(stream, path)["descrip"].item()).decode("ascii", errors="replace")


def write_volume(volume: Volume, path: Path, *, description: str = "") -> None:
    """Write a `.nii.gz` or `.nii` file in the orientation the volume came in, whole or not at all.

    The array's type is kept and stored without rescaling; the affine and the form codes are bit for bit those
    of the file the volume was read from, unless `notes` say that its geometry was read otherwise. `description`,
    ASCII of at most 79 bytes, goes to the header's `descrip`. Equal volumes give equal bytes.
    """
    if not path.name.endswith((".nii.gz", ".nii")):
        raise VolumeError(f"{path}: expected a name ending in .nii.gz or .nii")
    if not description.isascii() or len(description) > _MAX_DESCRIPTION_BYTES:
        expected = f"a description of at most {_MAX_DESCRIPTION_BYTES} ASCII characters"
        raise VolumeError(f"{path}: expected {expected}, found {description!r}")
    if volume.source_header is None:
        header, array = _new_header(volume.affine), volume.array
    else:
        header = volume.source_header.copy()
        array = _in_file_order(volume, header, path)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _STORABLE_TYPES:
        raise VolumeError(f"{path}: expected voxels of a type NIfTI readers know, found {array.dtype}")
    header.set_data_dtype(dtype)
    header["descrip"] = description.encode("ascii")
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    header.set_data_shape(array.shape)
    image = image_class(array.astype(dtype, copy=False), header.get_best_affine(), header)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if path.name.endswith(".gz"):
            # without name and time equal content gives equal bytes
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(file)


def file_slice_axis(volume: Volume) -> int:
    """Return the axis of `array` along which the file a volume came from counts its slices; z if it came from none."""
    return int(io_orientation(volume.file_affine)[2, 0])


def _new_header(affine: Float64[np.ndarray, "4 4"]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape((1, 1, 1))
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return header


def _in_file_order(volume: Volume, header: nib.Nifti1Header, path: Path) -> Shaped[np.ndarray, "i j k"]:
    file_affine = affine_of(header)
    orientation = io_orientation(file_affine)
    file_shape = tuple(header.get_data_shape())
    ras_affine = file_affine @ inv_ornt_aff(orientation, file_shape)
    array: np.ndarray = apply_orientation(volume.array, ornt_transform(RAS_ORIENTATION, orientation))
    if array.shape != file_shape or not np.array_equal(ras_affine, volume.affine):
        raise VolumeError(
            f"{path}: expected the grid of the file the volume came from, {file_shape} voxels, found another "
            "one; a volume on a grid of its own has no source_header"
        )
    return array
