"""Images of whatever kind one has in Python: to a volume and, painted, back to the same kind.

A kind is one record in `_KINDS`. An array comes with its affine, as a pair; the affine maps its indices to millimetres,
RAS. SimpleITK and MONAI are not imported here: who has an image of theirs has imported them.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from promptlesion.data.case_check import check_hounsfield, check_spacing, whole_labels
from promptlesion.data.dataset_json import labels_of, read_dataset_json
from promptlesion.data.nifti_file import RAS_ORIENTATION
from promptlesion.data.sources.image_files import read_image
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import LPS_TO_RAS, Volume, checked_affine, oriented_volume

Image = TypeVar("Image")
"""A `Volume`, a pair of array and affine, or an image of nibabel, SimpleITK or MONAI."""
_Voxels = tuple[np.ndarray, np.ndarray]
"""Along the axes i, j and k of the image, and the affine to millimetres, RAS."""


@dataclass(frozen=True, eq=False)
class LabelMap(Volume):
    """A label map that knows what its values are called."""

    names: Mapping[str, int] = field(default_factory=dict)
    """Values by name; empty where nobody said."""


def read_scan(path: str | Path) -> Volume:
    """Read a CT in HU, NIfTI, NRRD or MetaImage, as a RAS+ volume.

    Raises:
        DatasetError: voxels that are no Hounsfield units, or of a size that no CT has.
        VolumeError: a file that is none of these, or damaged.
    """
    return _checked_scan(str(path), read_image(Path(path)))


def read_labels(path: str | Path, *, names: Mapping[str, int] | None = None) -> LabelMap:
    """Read a label map; what its values are called is said, or read from the `dataset.json` of its dataset folder.

    Args:
        path: NIfTI, NRRD or MetaImage.
        names: values by name, as `{"liver": 1}`.

    Raises:
        DatasetError: values that are not whole numbers from 0 to 255.
        VolumeError: a file that is none of these, or damaged.
    """
    volume = read_image(Path(path))
    if names is None:
        beside = [folder / "dataset.json" for folder in Path(path).resolve().parents[:2]]
        names = next((labels_of(read_dataset_json(file), file) for file in beside if file.is_file()), {})
    array = whole_labels(str(path), volume.array)
    return LabelMap(array, volume.affine, volume.source_header, volume.notes, dict(names))


def scan_of(image: object) -> Volume:
    """Return a CT of any kind as a volume of its own; nothing that is done to it changes the image."""
    volume = _checked_scan("scan", as_volume(image, "scan"))
    return volume.with_array(volume.array.copy())


def as_volume(image: object, name: str) -> Volume:
    """Return an image of any kind as a RAS+ volume that remembers the image's own axis order.

    Raises:
        DatasetError: it is of no known kind, or does not have three axes.
        VolumeError: its affine places no voxels.
    """
    if isinstance(image, Volume):
        return image
    array, affine = _kind_of(image, name).read(image)
    if array.ndim != 3:
        raise DatasetError(f"{name}: expected one volume with three axes, found the shape {array.shape}")
    return oriented_volume(array, checked_affine(affine.astype(np.float64), Path(name)))


def as_kind_of(image: Image, volume: Volume) -> Image:
    """Return a volume on the grid of an image as an image of the same kind and number type."""
    own = as_volume(image, "image")
    array = volume.array.astype(own.array.dtype, copy=False)
    if isinstance(image, Volume):
        return cast("Image", image.with_array(array))
    stored = apply_orientation(array, ornt_transform(RAS_ORIENTATION, io_orientation(own.file_affine)))
    return cast("Image", _kind_of(image, "image").write(image, np.ascontiguousarray(stored)))


def _checked_scan(name: str, volume: Volume) -> Volume:
    check_spacing(name, volume)
    check_hounsfield(name, volume.array)
    return volume


@dataclass(frozen=True)
class _Kind:
    """Images of one library: which they are, what they hold, and one with other voxels."""

    holds: Callable[[object], bool]
    read: Callable[[Any], _Voxels]
    write: Callable[[Any, np.ndarray], Any]


def _kind_of(image: object, name: str) -> _Kind:
    for kind in _KINDS:
        if kind.holds(image):
            return kind
    hint = "; an array comes with its affine, as (array, affine)" if isinstance(image, np.ndarray) else ""
    raise DatasetError(
        f"{name}: expected what read_scan or read_labels gave, a pair (array, affine), or an image of nibabel, "
        f"SimpleITK or MONAI; found {type(image).__name__}{hint}"
    )


def _is_of(module: str, name: str) -> Callable[[object], bool]:
    """Return what tells objects of a class whose library is imported by whoever has one."""
    return lambda image: module in sys.modules and isinstance(image, getattr(sys.modules[module], name))


def _is_pair(image: object) -> bool:
    return isinstance(image, tuple) and len(image) == 2 and all(isinstance(part, np.ndarray) for part in image)


def _nibabel_voxels(image: Any) -> _Voxels:
    array = np.asanyarray(image.dataobj)
    return (array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array), np.asarray(image.affine)


def _nibabel_image(image: Any, array: Shaped[np.ndarray, "i j k"]) -> Any:
    header = image.header.copy()
    header.set_data_dtype(array.dtype)
    return type(image)(array.reshape(image.shape), image.affine, header)


def _itk_voxels(image: Any) -> _Voxels:
    array = sys.modules["SimpleITK"].GetArrayFromImage(image).T
    affine = np.eye(4)
    if array.ndim == 3:
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
    return array, LPS_TO_RAS @ affine


def _itk_image(image: Any, array: Shaped[np.ndarray, "i j k"]) -> Any:
    changed = sys.modules["SimpleITK"].GetImageFromArray(np.ascontiguousarray(array.T))
    changed.CopyInformation(image)
    for key in image.GetMetaDataKeys():
        changed.SetMetaData(key, image.GetMetaData(key))
    return changed


def _monai_voxels(image: Any) -> _Voxels:
    array = image.detach().cpu().numpy()
    affine = image.affine.detach().cpu().numpy()
    is_lps = str(getattr(image.meta.get("space"), "value", image.meta.get("space"))) == "LPS"
    return (array[0] if array.ndim == 4 and len(array) == 1 else array), LPS_TO_RAS @ affine if is_lps else affine


def _monai_image(image: Any, array: Shaped[np.ndarray, "i j k"]) -> Any:
    changed = image.clone()
    changed.copy_(sys.modules["torch"].from_numpy(array).reshape(image.shape))
    return changed


_KINDS = (
    _Kind(_is_pair, lambda image: image, lambda image, array: (array, image[1])),
    _Kind(lambda image: isinstance(image, nib.spatialimages.SpatialImage), _nibabel_voxels, _nibabel_image),
    _Kind(_is_of("SimpleITK", "Image"), _itk_voxels, _itk_image),
    _Kind(_is_of("monai.data.meta_tensor", "MetaTensor"), _monai_voxels, _monai_image),
)
