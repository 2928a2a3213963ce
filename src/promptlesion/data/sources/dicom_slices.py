"""DICOM files as slices: which files show CT, and where each slice lies. Only headers are read here."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation

from promptlesion.data.sources.extra import DICOM_ERRORS, looks_like_dicom

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # legacy converted enhanced CT
}
_LABEL_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",  # as a label map
    "1.2.840.10008.5.1.4.1.1.481.3": "structure set",
}
_LABEL_MODALITIES = {"SEG": "segmentation", "RTSTRUCT": "structure set"}
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_HEADER_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "StudyDate", "SeriesTime", "SeriesNumber", "SeriesDescription", "AcquisitionNumber"),
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime", "NominalPercentageOfCardiacPhase"),
    *("ConvolutionKernel", "KVP", "ContentTime", "AcquisitionTime", "NumberOfFrames", "SamplesPerPixel"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
_PHASE_TAGS = (
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase"),
    *("TriggerTime", "ConvolutionKernel", "KVP", "ImageType", "AcquisitionTime", "ContentTime"),
)
_DIRECTION_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Slice:
    """One CT slice: where its pixels are, where it lies (DICOM's LPS millimetres), and what its values mean.

    `directions` are those of a row and of a column, so column indices run along the first. `phase` holds what
    may tell two slices at one position apart.
    """

    path: Path
    frame: int
    uid: str
    position_mm: tuple[float, ...]
    directions: tuple[float, ...]
    spacing_mm: tuple[float, float]
    num_rows: int
    num_columns: int
    slope: float
    intercept: float
    phase: tuple[str, ...]


@dataclass(frozen=True)
class SeriesIdentity:
    """Whose series it is, and which; kept for the terminal and the key file, never written into a dataset."""

    patient_id: str
    study_date: str
    study_uid: str
    frame_of_reference_uid: str
    number: int
    series_uid: str
    description: str
    distinction: str = ""


@dataclass(frozen=True)
class DicomFile:
    """What a file turned out to be: "slices", "segmentation", "structure set", or what else it is, in words."""

    kind: str
    identity: SeriesIdentity | None = None
    slices: tuple[Slice, ...] = ()


@contextmanager
def leniently() -> Iterator[None]:
    """Let pydicom take files that break the standard's rules, as most archives hold some, without a remark on each.

    What is needed of a file is checked where it is used.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings(record=True), disable_value_validation():
        warnings.simplefilter("always")
        logger.setLevel(logging.CRITICAL)  # what it logs as an error it raises too
        try:
            yield
        finally:
            logger.setLevel(level)


def read_dicom(path: Path) -> Any:
    """Read a DICOM file with its pixels."""
    with leniently():
        return pydicom.dcmread(path, force=True)


def read_header(path: Path, tags: list[str] | None = None) -> Any:
    """Read a DICOM file without its pixels, also one that lacks the preamble; `None` for a file of another format."""
    if not looks_like_dicom(path):
        return None
    with leniently():
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        except DICOM_ERRORS:
            return None


def read_dicom_file(path: Path) -> DicomFile:
    """Say what a file is, and for CT where its slices lie."""
    header = read_header(path, [*_HEADER_TAGS])
    if header is None:
        return DicomFile("not DICOM")
    with leniently():
        try:
            return _classified(path, header)
        except DICOM_ERRORS:
            return DicomFile("DICOM with an unreadable header")


def functional_group(header: Any, frame: int, name: str) -> Any:
    """Return a functional group of a multi-frame object, the frame's own before the shared one; `None` without any."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in ([per_frame[frame]] if frame < len(per_frame) else []) + list(shared[:1]):
        found = groups.get(name)
        if found:
            return found[0]
    return None


def checked_directions(values: Any) -> tuple[float, ...] | None:
    """Return the six numbers of an image orientation, or `None` where they are no two directions at right angles."""
    numbers = tuple(float(value) for value in values or ())
    if len(numbers) != 6:
        return None
    row, column = np.array(numbers[:3]), np.array(numbers[3:])
    errors = (abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column))
    return numbers if max(errors) < _DIRECTION_TOLERANCE else None


def _classified(path: Path, header: Any) -> DicomFile:
    modality, kind = str(header.get("Modality") or ""), _either(header, "SOPClassUID", "MediaStorageSOPClassUID")
    if kind == _DIRECTORY_CLASS:
        return DicomFile("DICOMDIR")
    label_kind = _LABEL_MODALITIES.get(modality) or _LABEL_CLASSES.get(kind)
    if label_kind:
        return DicomFile(label_kind, _identity(header))
    if modality != "CT" and kind not in _CT_CLASSES:
        return DicomFile(f"modality {modality or 'unknown'}")
    if "LOCALIZER" in str(header.get("ImageType") or "").upper():
        return DicomFile("CT localizer")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return DicomFile("CT in colour")
    slices = tuple(_slices(path, header))
    if not slices:
        return DicomFile("CT without position, orientation or pixel spacing")
    return DicomFile("slices", _identity(header), slices)


def _either(header: Any, tag: str, meta_tag: str) -> str:
    """An identifier, from the file's meta information where anonymising emptied it in the header."""
    return str(header.get(tag) or header.file_meta.get(meta_tag) or "")


def _identity(header: Any) -> SeriesIdentity:
    number = str(header.get("SeriesNumber") or "").strip()
    has_uid = bool(header.get("SeriesInstanceUID"))
    return SeriesIdentity(
        patient_id=str(header.get("PatientID") or "").strip(),
        study_date=str(header.get("StudyDate") or ""),
        study_uid=str(header.get("StudyInstanceUID") or ""),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID") or ""),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        description=str(header.get("SeriesDescription") or "").strip(),
        # without its UID, a series is what shares everything else
        distinction="" if has_uid else f"{header.get('SeriesTime') or ''} {header.get('ConvolutionKernel') or ''}",
    )


def _slices(path: Path, header: Any) -> Iterator[Slice]:
    is_multi_frame = bool(header.get("PerFrameFunctionalGroupsSequence"))
    for frame in range(int(header.get("NumberOfFrames") or 1) if is_multi_frame else 1):

        def value(group: str, name: str, frame: int = frame) -> Any:
            holder = functional_group(header, frame, group) if is_multi_frame else header
            return None if holder is None else holder.get(name)

        position = tuple(float(number) for number in value("PlanePositionSequence", "ImagePositionPatient") or ())
        directions = checked_directions(value("PlaneOrientationSequence", "ImageOrientationPatient"))
        spacing = tuple(float(number) for number in value("PixelMeasuresSequence", "PixelSpacing") or ())
        numbers = np.array([*position, *spacing])
        if directions is None or len(numbers) != 5 or not np.isfinite(numbers).all() or min(spacing) <= 0:
            return
        slope = value("PixelValueTransformationSequence", "RescaleSlope")
        content = functional_group(header, frame, "FrameContentSequence") if is_multi_frame else None
        yield Slice(
            path=path,
            frame=frame,
            uid=_either(header, "SOPInstanceUID", "MediaStorageSOPInstanceUID"),
            position_mm=position,
            directions=directions,
            spacing_mm=(spacing[0], spacing[1]),
            num_rows=int(header.Rows),
            num_columns=int(header.Columns),
            slope=float(1.0 if slope in (None, "") else slope),
            intercept=float(value("PixelValueTransformationSequence", "RescaleIntercept") or 0.0),
            phase=tuple(str((content or header).get(tag) or "") for tag in _PHASE_TAGS),
        )
