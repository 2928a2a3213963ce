"""Volumes that carry their geometry: NIfTI files of any orientation outside, RAS+ arrays inside."""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from promptlesion.data.nifti_file import (
    RAS_ORIENTATION,
    DeflatingStream,
    VolumeError,
    opened,
    read_header,
    read_voxels,
)
from promptlesion.training.atomic import written_whole

__all__ = [
    "LPS_TO_RAS",
    "Volume",
    "VolumeError",
    "checked_affine",
    "file_slice_axis",
    "oriented_volume",
    "read_description",
    "read_volume",
    "write_volume",
]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world axes of DICOM and ITK to those of NIfTI, and back."""

_SMALLEST_VOXEL_MM3 = 1e-9
_MAX_DESCRIPTION_BYTES = 79
_STORABLE_TYPES = [
    np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
]
_GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in RAS+ order together with where they lie in the world.

    `affine` maps indices of `array` to world millimetres. `source_header` is the geometry of the file the
    volume came from (nothing else of that file), so that writing restores its axis order, affine and form
    codes exactly.
    """

    array: Shaped[np.ndarray, "x y z"]
    affine: Float64[np.ndarray, "4 4"]
    source_header: nib.Nifti1Header | None = None

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
    def shear(self) -> float:
        """The largest cosine between two axes: 0 at right angles."""
        directions = self.affine[:3, :3] / self.spacing_mm
        return float(np.abs(directions.T @ directions - np.eye(3)).max())

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
        shape = tuple(header.get_data_shape())
        if len(shape) != 3:
            raise VolumeError(f"{path}: expected a 3-D volume, found the shape {shape}")
        if min(shape) < 1:
            raise VolumeError(f"{path}: expected voxels along every axis, found the shape {shape}")
        file_affine = checked_affine(_affine_of(header), path)
        orientation = io_orientation(file_affine)
        return Volume(
            array=read_voxels(stream, header, orientation, path),
            affine=file_affine @ inv_ornt_aff(orientation, shape),
            source_header=_geometry_of(header),
        )


def oriented_volume(array: Shaped[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]) -> Volume:
    """Return voxels in any axis order as a RAS+ volume that is written back in the order given.

    `affine` maps i, j and k to world millimetres, RAS; NIfTI keeps it in single precision.
    """
    header = _new_header(affine)
    header.set_data_shape(array.shape)
    stored = _affine_of(header)
    orientation = io_orientation(stored)
    return Volume(
        array=np.ascontiguousarray(apply_orientation(array, orientation)),
        affine=stored @ inv_ornt_aff(orientation, array.shape),
        source_header=header,
    )


def checked_affine(affine: Float64[np.ndarray, "4 4"], path: Path) -> Float64[np.ndarray, "4 4"]:
    """The affine of a file; raises `VolumeError` where it places no voxels."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_VOXEL_MM3:
        raise VolumeError(f"{path}: expected a finite, invertible affine, found {affine.tolist()}")
    return affine


def read_shape(path: Path) -> tuple[int, ...]:
    """Return how many voxels a NIfTI file has along each axis, in the order it stores them; reads the header only."""
    with opened(path) as stream:
        return tuple(int(length) for length in read_header(stream, path).get_data_shape())


def read_description(path: Path) -> str:
    """Return what the header of a NIfTI file says of itself, as `write_volume` was given it; reads the header only."""
    with opened(path) as stream:
        return bytes(read_header(stream, path)["descrip"].item()).decode("ascii", errors="replace")


def write_volume(volume: Volume, path: Path, *, description: str = "") -> None:
    """Write a `.nii.gz` or `.nii` file in the orientation the volume came in, whole or not at all.

    The array's type is kept and stored without rescaling; the affine and the form codes are bit for bit those
    of the file the volume was read from. `description`, ASCII of at most 79 bytes, goes to the header's
    `descrip`. Equal volumes give equal bytes.
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
            with DeflatingStream(file) as stream:
                image.to_stream(stream)
        else:
            image.to_stream(file)


def file_slice_axis(volume: Volume) -> int:
    """Return the axis of `array` along which the file a volume came from counts its slices; z if it came from none."""
    if volume.source_header is None:
        return 2
    return int(io_orientation(_affine_of(volume.source_header))[2, 0])


def _affine_of(header: nib.Nifti1Header) -> Float64[np.ndarray, "4 4"]:
    return np.asarray(header.get_best_affine(), dtype=np.float64)


def _geometry_of(header: nib.Nifti1Header) -> nib.Nifti1Header:
    geometry = nib.Nifti2Header() if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header()
    for field in _GEOMETRY_FIELDS:
        geometry[field] = header[field]
    return geometry


def _new_header(affine: Float64[np.ndarray, "4 4"]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_shape((1, 1, 1))
    header.set_qform(affine, code="scanner")
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return header


def _in_file_order(volume: Volume, header: nib.Nifti1Header, path: Path) -> Shaped[np.ndarray, "i j k"]:
    file_affine = _affine_of(header)
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
