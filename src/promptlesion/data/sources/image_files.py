"""Image files of any format a CT comes in: NIfTI, NRRD, MetaImage."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float64, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from promptlesion.data.sources.extra import imported
from promptlesion.data.volume import Volume, VolumeError, read_volume

_NIFTI_ENDINGS = (".nii.gz", ".nii")
_OTHER_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_ENDINGS = (*_NIFTI_ENDINGS, *_OTHER_ENDINGS)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SMALLEST_VOLUME = 1e-9


def image_stem(path: Path) -> str:
    """Return the file's name without the ending of its format."""
    for ending in IMAGE_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def list_images(folder: Path) -> list[Path]:
    """Return the images that lie in a folder, by name; `._` files, which macOS leaves, are none."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name.lower().endswith(IMAGE_ENDINGS))


def read_image(path: Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file as a RAS+ volume that is written back in its own axis order.

    Raises `VolumeError` for what is missing, damaged, not 3-D, or has no usable affine.
    """
    if path.name.lower().endswith(_OTHER_ENDINGS):
        return _read_with_itk(path)
    return read_volume(path)


def oriented_volume(array: Shaped[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]) -> Volume:
    """Return voxels in any axis order as a RAS+ volume that is written back in the order given.

    `affine` maps i, j and k to world millimetres, RAS; NIfTI keeps it in single precision.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_sform(affine, code="scanner")
    header.set_xyzt_units("mm")
    stored = np.asarray(header.get_best_affine(), dtype=np.float64)
    orientation = io_orientation(stored)
    return Volume(
        array=np.ascontiguousarray(apply_orientation(array, orientation)),
        affine=stored @ inv_ornt_aff(orientation, array.shape),
        source_header=header,
    )


def _read_with_itk(path: Path) -> Volume:
    itk: Any = imported("SimpleITK", needed_for=path)
    if not path.is_file():
        raise VolumeError(f"{path}: expected an image file, found none")
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VolumeError(f"{path}: expected a whole image, found a damaged or unknown one ({reason})") from error
    size, channels = tuple(image.GetSize()), image.GetNumberOfComponentsPerPixel()
    if len(size) != 3 or channels != 1:
        raise VolumeError(f"{path}: expected a 3-D volume of one channel, found the shape {size}, {channels} channels")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine = LPS_TO_RAS @ affine
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_VOLUME:
        raise VolumeError(f"{path}: expected a finite, invertible affine, found {affine.tolist()}")
    array = itk.GetArrayFromImage(image).T  # ITK's arrays run z y x
    return oriented_volume(array if array.dtype.kind in "iu" else array.astype(np.float32), affine)
