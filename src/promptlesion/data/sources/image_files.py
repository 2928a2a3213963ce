"""Image files of any format a CT comes in: NIfTI, NRRD, MetaImage; and cases of a CT and a label map."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from promptlesion.data.sources.extra import imported
from promptlesion.data.sources.image_header import in_millimetres, read_fields
from promptlesion.data.sources.slicer import padded, renumbered, segments_of
from promptlesion.data.sources.source import Scan, SourceCase
from promptlesion.data.volume import (
    LPS_TO_RAS,
    Volume,
    VolumeError,
    as_first_version,
    checked_affine,
    oriented_volume,
    read_volume,
)

_NIFTI_ENDINGS = (".nii.gz", ".nii")
_OTHER_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
IMAGE_ENDINGS = (*_NIFTI_ENDINGS, *_OTHER_ENDINGS)


def image_stem(path: Path) -> str:
    """Return the file's name without the ending of its format."""
    for ending in IMAGE_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def said_endings(files: Iterable[Path]) -> str:
    """Say which endings files have that are none of a format that is read: `6 .hdr, 6 .img`; `none` without any."""
    names = (path.name.lower() for path in files if not path.name.startswith("."))
    counts = Counter(Path(name).suffix or name for name in names if not name.endswith(IMAGE_ENDINGS))
    text = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items())[:5])
    hint = "; pairs of .hdr and .img are not read: convert them to .nii.gz" if ".hdr" in counts else ""
    return f"{text or 'none'}{hint}"


def list_images(folder: Path) -> list[Path]:
    """Return the images that lie in a folder, by name; `._` files, which macOS leaves, are none."""
    files = (path for path in folder.iterdir() if not path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in files if path.name.lower().endswith(IMAGE_ENDINGS))


def read_image(path: Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file as a RAS+ volume that is written back in its own axis order.

    Raises `VolumeError` for what is missing, damaged, not 3-D, or has no usable affine.
    """
    if path.name.lower().endswith(_OTHER_ENDINGS):
        return _read_with_itk(path)
    return as_first_version(read_volume(path))


def pair_case(name: str, image: Path, labels: Path, *, values: Mapping[str, int] | None = None) -> SourceCase:
    """Return the case of a CT and a label map, what most public layouts come down to; a missing one is its refusal.

    `values` are those of the dataset's labels, where the label map's segments are told by name.
    """
    lacking = [str(path) for path in (image, labels) if not path.is_file()]
    return SourceCase(
        name=name,
        files=() if lacking else (image, labels),
        read=partial(read_pair, image, labels, values),
        origin={"file": str(image), "labels": str(labels)},
        refusal=f"{name}: expected the file {' and '.join(lacking)}, found none" if lacking else None,
    )


def read_pair(image: Path, labels: Path, values: Mapping[str, int] | None = None) -> Scan:
    """Read a CT and its label map; notes say what was not read as it stands."""
    scan, label_map = read_image(image), read_image(labels)
    segments = segments_of(labels)
    if segments:
        label_map = padded(labels, scan, label_map)
        label_map = label_map if values is None else renumbered(labels, label_map, segments, values)
    return Scan(scan, label_map, notes=(*scan.notes.values(), *(f"label map: {n}" for n in label_map.notes.values())))


def _read_with_itk(path: Path) -> Volume:
    itk: Any = imported("SimpleITK", needed_for=path)
    if not path.is_file():
        raise VolumeError(f"{path}: expected an image file, found none")
    fields = read_fields(path)
    if fields.get("ndims", "3") not in ("3", "4"):  # ITK 5.4 takes any number for granted and may crash
        raise VolumeError(f"{path}: expected a 3-D volume, found NDims = {fields['ndims'][:20]}", "not-3d")
    try:
        image = itk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise VolumeError(f"{path}: expected a whole image, found a damaged or unknown one ({reason})") from error
    if image.GetDimension() > 3 and set(image.GetSize()[3:]) == {1}:
        image = itk.Extract(image, [*image.GetSize()[:3], *[0] * (image.GetDimension() - 3)])
    size, channels = tuple(image.GetSize()), image.GetNumberOfComponentsPerPixel()
    if len(size) != 3 or channels != 1:
        raise VolumeError(f"{path}: expected a 3-D volume of one channel, found the shape {size}, {channels} channels")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine, notes = in_millimetres(affine, fields, path)
    affine = checked_affine(LPS_TO_RAS @ affine, path)
    array = itk.GetArrayFromImage(image).T  # ITK's arrays run z y x
    volume = oriented_volume(array if array.dtype.kind in "iu" else array.astype(np.float32), affine)
    return replace(volume, notes={**volume.notes, **notes})
