"""A synthetic case as DICOM: a derived CT series, one file a slice, and a DICOM-SEG of its labels."""

import hashlib
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from promptlesion.data.case_check import check_same_grid
from promptlesion.data.dicom_export.segmentation import build_segmentation
from promptlesion.data.dicom_export.series import DicomExportError, DicomSlices, cut_slices, uids_of, write_series
from promptlesion.data.sources.extra import imported
from promptlesion.data.volume import Volume
from promptlesion.training.atomic import naming

__all__ = ["CT_FOLDER", "SEGMENTATION_FILE", "DicomExportError", "check_dicom_extra", "export_dicom"]

CT_FOLDER = "ct"
SEGMENTATION_FILE = "seg.dcm"

_INT16 = np.iinfo(np.int16)
_LONGEST_TEXT = 63
_DELIMITERS = "\\^="


def check_dicom_extra() -> None:
    """Raise `ValueError` where the packages that write DICOM are not installed."""
    for package in ("pydicom", "highdicom"):
        imported(package, needed_for="DICOM export")


def export_dicom(
    image: Volume,
    labels: Volume,
    *,
    name: str,
    subject: str,
    label_names: dict[str, int],
    description: str,
    folder: Path,
    lesion_types: Collection[str] = (),
) -> None:
    """Write `folder/ct/0001.dcm` … and `folder/seg.dcm`, whole or not at all; the same call gives the same bytes.

    HU and geometry are exact; slices are cut along the slice axis of the file the scan came from. Every UID is new and
    follows from the content. The files say that they are derived and synthetic, and know the patient by `subject` only.
    A label map without labels gives no `seg.dcm`. What lies in `folder` from an earlier call is replaced.

    HU with a fraction are rounded. `label_names` are label values by name, of which the background (0) is no segment;
    those in `lesion_types` are lesions, all others anatomy. `description`, how the scan was made, becomes the
    DerivationDescription.

    Raises:
        ValueError: a package is missing.
        DicomExportError: the grid is sheared, voxels are no HU of 16 bits, or a text is not one that DICOM takes.
    """
    check_dicom_extra()
    check_same_grid(name, image, labels)
    for text, what in ((name, "name of the case"), (subject, "subject")):
        _check_text(text, f"{name}: expected a {what}")
    slices = cut_slices(image, name)
    hu, label_pixels = _whole_hu(image.array, name), slices.pixels(labels.array)
    named = (repr(sorted(label_names.items())), repr(sorted(lesion_types)))
    told = (version("promptlesion"), name, subject, description, *named)
    uids = uids_of(_content_hash(told, slices, hu, labels.array))
    with _folder_whole(folder) as partial:
        headers = write_series(slices.pixels(hu), slices, partial / CT_FOLDER, uids, name, subject, description)
        present = {
            label: value for label, value in label_names.items() if value and bool((labels.array == value).any())
        }
        if present:
            segmentation = build_segmentation(label_pixels, headers, present, lesion_types, uids, description)
            segmentation.save_as(partial / SEGMENTATION_FILE, enforce_file_format=True)


def _whole_hu(array: Shaped[np.ndarray, "x y z"], name: str) -> Shaped[np.ndarray, "x y z"]:
    low, high = float(array.min()), float(array.max())
    if not (_INT16.min <= low <= high <= _INT16.max):  # NaN fails too
        raise DicomExportError(f"{name}: expected HU from {_INT16.min} to {_INT16.max}, found {low:g} to {high:g}")
    if array.dtype.kind in "iu":
        return array.astype(np.int16, copy=False)
    whole = np.empty(array.shape, np.int16)
    for index, plane in enumerate(array):
        whole[index] = np.rint(plane)
    return whole


def _content_hash(told: Iterable[str], slices: DicomSlices, hu: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for text in told:
        digest.update(text.encode() + b"\0")
    digest.update(slices.affine.tobytes())
    for array in (hu, labels):
        for plane in slices.pixels(array):
            digest.update(plane.tobytes())
    return digest.hexdigest()


def _check_text(text: str, expectation: str) -> None:
    if not 0 < len(text) <= _LONGEST_TEXT or set(text) & set(_DELIMITERS) or not text.isprintable():
        raise DicomExportError(
            f"{expectation} of 1 to {_LONGEST_TEXT} printable characters but {' '.join(_DELIMITERS)}, found {text!r}"
        )


@contextmanager
def _folder_whole(folder: Path) -> Iterator[Path]:
    """Give a folder beside its place; it takes the place of `folder`, or goes where the block fails."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if set(found) - {CT_FOLDER, SEGMENTATION_FILE}:
        raise DicomExportError(f"{folder}: expected no folder, or one of an earlier export, found {', '.join(found)}")
    partial, replaced = (folder.with_name(f".{state}.{folder.name}") for state in ("partial", "replaced"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        with naming(folder):
            (partial / CT_FOLDER).mkdir(parents=True)
            yield partial
        if folder.is_dir():
            folder.rename(replaced)
        partial.rename(folder)
    finally:
        for leftover in (partial, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
