"""Volumes that carry their geometry: NIfTI files of any orientation outside, RAS+ arrays inside."""

import gzip
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.wrapstruct import WrapStructError

from promptlesion.training.atomic import written_whole

_RAS_ORIENTATION = np.array([[0, 1], [1, 1], [2, 1]])
_NIFTI2_HEADER_BYTES = 540
_STORABLE_TYPES = [
    np.dtype(name) for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
]
_GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


class VolumeError(ValueError):
    """A file that cannot be read or written as a volume; the message names it and says what was found."""


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
    image = _open_image(path)
    if len(image.shape) != 3:
        raise VolumeError(f"{path}: expected a 3-D volume, found the shape {tuple(image.shape)}")
    if 0 in image.shape:
        raise VolumeError(f"{path}: expected voxels along every axis, found the shape {tuple(image.shape)}")
    file_affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(file_affine).all() or abs(np.linalg.det(file_affine[:3, :3])) < 1e-9:
        raise VolumeError(f"{path}: expected a finite, invertible affine, found {file_affine.tolist()}")
    orientation = io_orientation(file_affine)
    return Volume(
        array=np.ascontiguousarray(apply_orientation(_voxels(image, path), orientation)),
        affine=file_affine @ inv_ornt_aff(orientation, image.shape),
        source_header=_geometry_of(image.header),
    )


def write_volume(volume: Volume, path: Path) -> None:
    """Write a `.nii.gz` or `.nii` file in the orientation the volume came in, whole or not at all.

    The array's type is kept and stored without rescaling; the affine and the form codes are bit for bit those
    of the file the volume was read from. Equal volumes give equal bytes.
    """
    if not path.name.endswith((".nii.gz", ".nii")):
        raise VolumeError(f"{path}: expected a name ending in .nii.gz or .nii")
    if volume.source_header is None:
        header, array = _new_header(volume.affine), volume.array
    else:
        header = volume.source_header.copy()
        array = _in_file_order(volume, header, path)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _STORABLE_TYPES:
        raise VolumeError(f"{path}: expected voxels of a type NIfTI readers know, found {array.dtype}")
    header.set_data_dtype(dtype)
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    header.set_data_shape(array.shape)
    content = image_class(array.astype(dtype, copy=False), header.get_best_affine(), header).to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=1, mtime=0)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def _open_image(path: Path) -> nib.Nifti1Image:
    if not path.is_file():
        raise VolumeError(f"{path}: expected a NIfTI file, found none")
    content = path.read_bytes()
    if not content:
        raise VolumeError(f"{path}: expected a NIfTI file, found an empty one (0 bytes)")
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)  # at once, so that the checksum at its end is checked too
        is_nifti2 = _NIFTI2_HEADER_BYTES in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        return (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)
    except (EOFError, OSError, ValueError, zlib.error, ImageFileError, WrapStructError) as error:
        raise VolumeError(f"{path}: expected a whole NIfTI file, found a truncated or damaged one ({error})") from error


def _voxels(image: nib.Nifti1Image, path: Path) -> Shaped[np.ndarray, "i j k"]:
    stored = image.dataobj
    is_rescaled = (stored.slope, stored.inter) != (1.0, 0.0)
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise VolumeError(f"{path}: expected one number a voxel, found voxels of type {dtype}")
    try:
        values = np.asarray(stored.get_unscaled() if not is_rescaled else stored)
    except (EOFError, OSError, ValueError) as error:
        raise VolumeError(f"{path}: expected {image.shape} voxels, found a truncated file ({error})") from error
    keeps_integers = dtype.kind in "iu" and not is_rescaled
    return values.astype(dtype.newbyteorder("=") if keeps_integers else np.float32, copy=False)


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
    file_affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    orientation = io_orientation(file_affine)
    file_shape = tuple(header.get_data_shape())
    ras_affine = file_affine @ inv_ornt_aff(orientation, file_shape)
    array: np.ndarray = apply_orientation(volume.array, ornt_transform(_RAS_ORIENTATION, orientation))
    if array.shape != file_shape or not np.array_equal(ras_affine, volume.affine):
        raise VolumeError(
            f"{path}: expected the grid of the file the volume came from, {file_shape} voxels, found another "
            "one; a volume on a grid of its own has no source_header"
        )
    return array
