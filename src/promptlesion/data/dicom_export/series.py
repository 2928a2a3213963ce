"""A scan as the slices of a DICOM series: their geometry, their headers, their files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Shaped, UInt16
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from promptlesion.data.nifti_file import RAS_ORIENTATION
from promptlesion.data.volume import LPS_TO_RAS, Volume, file_slice_axis

if TYPE_CHECKING:
    from pydicom.dataset import Dataset as DicomDataset

# a made-up moment: the day the files were written would change their bytes and says nothing of a made-up scan
DATE, TIME = "20000101", "000000"

_UID_PREFIX = "1.2.826.0.1.3680043.8.498."  # pydicom's own root, which anyone may derive identifiers from
_USUAL_INTERCEPT_HU = -1024
_ORTHOGONAL = 1e-4
# how columns, rows and slices run, as radiologists look at them, by the source's slice axis: columns to the patient's
# left (sagittal: back), rows to the back (else: down), slices along their cross product
_LAYOUTS = ("PIR", "LIP", "LPS")


class DicomExportError(ValueError):
    """A case that cannot be written as DICOM; the message names it and says why."""


@dataclass(frozen=True)
class DicomSlices:
    """A scan cut into DICOM slices: where they lie, and how their voxels become pixels."""

    orientation: Shaped[np.ndarray, "3 2"]
    """Of columns, rows and slices, as nibabel gives it for RAS+ voxels."""
    affine: Float64[np.ndarray, "4 4"]
    """From (column, row, slice) to millimetres, LPS+."""

    def pixels(self, array: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "slice row column"]:
        """Return a view of the scan's voxels in DICOM's order."""
        return np.asarray(apply_orientation(array, self.orientation).T)


Uids = Callable[..., str]
"""Gives the unique identifier of a part of the content; the same part always has the same."""


def uids_of(content: str) -> Uids:
    """Return the identifiers that follow from the hash of the content."""
    from pydicom.uid import generate_uid

    return lambda *what: str(generate_uid(_UID_PREFIX, entropy_srcs=[content, *map(str, what)]))


def cut_slices(image: Volume, name: str) -> DicomSlices:
    """Return how a scan is cut into slices, along the slice axis of the file it came from; `name` is for the error."""
    if image.shear > _ORTHOGONAL:
        raise DicomExportError(
            f"{name}: expected axes at right angles, as a DICOM series has them, found a sheared affine "
            f"(cosine {image.shear:.4f} between two axes)"
        )
    orientation = ornt_transform(RAS_ORIENTATION, axcodes2ornt(_LAYOUTS[file_slice_axis(image)]))
    return DicomSlices(orientation, LPS_TO_RAS @ image.affine @ inv_ornt_aff(orientation, image.shape))


def write_series(
    pixels: Shaped[np.ndarray, "slice row column"],
    slices: DicomSlices,
    folder: Path,
    uids: Uids,
    name: str,
    subject: str,
    description: str,
) -> "list[DicomDataset]":
    """Write the slices and return their headers, without pixels."""
    intercept = min(_USUAL_INTERCEPT_HU, int(pixels.min()))
    headers = []
    for index, plane in enumerate(pixels):
        header = _slice_header(index, slices, uids, name, subject, description)
        header.Rows, header.Columns = plane.shape
        header.RescaleIntercept = str(intercept)
        stored: UInt16[np.ndarray, "row column"] = (plane.astype(np.int32) - intercept).astype("<u2")
        header.PixelData = stored.tobytes()
        header.save_as(folder / f"{index + 1:04d}.dcm", enforce_file_format=True)
        del header.PixelData
        headers.append(header)
    return headers


def _slice_header(
    index: int, slices: DicomSlices, uids: Uids, name: str, subject: str, description: str
) -> "DicomDataset":
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SpecificCharacterSet = "ISO_IR 192"
    header.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, uids("slice", index)
    say_what_it_is(header, description)
    header.PatientID, header.PatientName = subject, f"{subject}^"  # the caret says: this one component is the name
    header.PatientBirthDate = header.PatientSex = ""
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = "Written anew: only voxels and their geometry are kept"
    header.StudyInstanceUID, header.SeriesInstanceUID = uids("study"), uids("ct series")
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = uids("frame of reference"), ""
    header.StudyDate = header.SeriesDate = header.ContentDate = header.InstanceCreationDate = DATE
    header.StudyTime = header.SeriesTime = header.ContentTime = header.InstanceCreationTime = TIME
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "1", "", ""
    header.StudyDescription = name
    header.Modality, header.SeriesNumber, header.InstanceNumber = "CT", 1, index + 1
    header.SeriesDescription = "Synthetic CT, promptlesion"
    header.Manufacturer, header.ManufacturerModelName = "", "promptlesion"
    header.SoftwareVersions = version("promptlesion")
    header.AcquisitionNumber, header.KVP, header.PatientPosition = None, None, ""
    header.BurnedInAnnotation = "NO"
    _place(header, index, slices.affine)
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.RescaleSlope, header.RescaleType = "1", "HU"
    return header


def _place(header: "DicomDataset", index: int, affine: Float64[np.ndarray, "4 4"]) -> None:
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / spacing_mm
    header.ImagePositionPatient = _decimals(affine[:3, 3] + index * affine[:3, 2])
    header.ImageOrientationPatient = _decimals(directions[:, :2].T.ravel())
    header.PixelSpacing = _decimals(spacing_mm[1::-1])
    header.SliceThickness, header.SpacingBetweenSlices = _decimals([spacing_mm[2]] * 2)


def _decimals(values: Sequence[float] | Float64[np.ndarray, " n"]) -> list[str]:
    """Write numbers as DICOM's decimal strings of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(value) + 0.0) for value in values]


def say_what_it_is(dataset: "DicomDataset", description: str) -> None:
    """State the derivation, and that the data are synthetic."""
    dataset.DerivationDescription = description[:1024]
    dataset.SyntheticData = "YES"
