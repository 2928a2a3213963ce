"""DICOM files as what they show: CT slices, labels, or what is left out and why. Only headers are read here."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.misc import is_dicom

from promptlesion.data.sources.dicom_slices import (
    DICOM_ERRORS,
    SeriesIdentity,
    Slice,
    checked_directions,
    functional_group,
    leniently,
    read_header,
)
from promptlesion.data.spec import DatasetError

NOT_DICOM = "not DICOM"
LABEL_KINDS = ("segmentation", "structure set")
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
_CAPTURE_CLASS = "1.2.840.10008.5.1.4.1.1.7"
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_GEOMETRY_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "StudyDate", "SeriesInstanceUID", "SeriesTime", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "BitsStored"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PHASE_TAGS = (
    *("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "SeriesDescription"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "NominalPercentageOfCardiacPhase"),
    *("ConvolutionKernel", "KVP", "ImageType", "ScanOptions", "ProtocolName", "ImageComments", "FilterType"),
    *("ContrastBolusAgent", "ReconstructionDiameter", "SliceThickness", "XRayTubeCurrent"),
    *("TriggerTime", "AcquisitionDateTime", "AcquisitionTime", "ContentTime"),
)
_OF_GEOMETRY_OR_VALUES = {
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelSpacing", "PixelValueTransformationSequence"),
    *("FrameVOILUTSequence", "DerivationImageSequence", "ReferencedImageSequence", "InStackPositionNumber"),
}
_NO_HU_TYPE = re.compile(r"OD|MGML|HU_MOD|EDW?|PCT|Z_?EFF.*|.*[/%].*|.*IODINE.*")  # as the standard has them, and units
_NO_HU_IMAGE = re.compile(r"MD_.*|MAT_.*|.*IODINE.*|EFF_ATOMIC_NUM|Z_EFF|EFF_Z|RHO_Z|ELECTRON_DENSITY")
_UNREADABLE = "DICOM with an unreadable header"
_CAPTURE_IMAGE = re.compile(r".*(CAPTURE|SCREEN).*")


@dataclass(frozen=True)
class DicomFile:
    """What a file turned out to be: "slices", "segmentation", "structure set", or what else it is, in words.

    A CT that makes no slices has an `identity` and a `shape` too, as its series lacks it. `is_damaged` where nobody
    would leave it out knowingly.
    """

    kind: str
    path: Path
    identity: SeriesIdentity | None = None
    slices: tuple[Slice, ...] = ()
    shape: tuple[int, int] | None = None
    is_damaged: bool = False

    @property
    def series_uid(self) -> str:
        """The series it belongs to, if it says so."""
        return self.identity.series_uid if self.identity is not None else ""


def read_dicom_file(path: Path) -> DicomFile:
    """Say what a file is, and for CT where its slices lie."""
    header = read_header(path, [*dict.fromkeys((*_GEOMETRY_TAGS, *_PHASE_TAGS))])
    if header is None or not (header or header.file_meta):
        return DicomFile(_UNREADABLE, path, is_damaged=True) if is_dicom(path) else DicomFile(NOT_DICOM, path)
    with leniently():
        try:
            return _classified(path, header)
        except DICOM_ERRORS as error:
            return DicomFile(f"{_UNREADABLE} ({error})", path, is_damaged=True)


def _classified(path: Path, header: Any) -> DicomFile:
    modality, kind = str(header.get("Modality") or ""), _either(header, "SOPClassUID", "MediaStorageSOPClassUID")
    if kind == _DIRECTORY_CLASS:
        return DicomFile("DICOMDIR", path)
    label_kind = _LABEL_MODALITIES.get(modality) or _LABEL_CLASSES.get(kind)
    if label_kind:
        return DicomFile(label_kind, path, _identity(header))
    if not modality and not kind and is_dicom(path):
        return DicomFile(_UNREADABLE, path, is_damaged=True)
    if modality != "CT" and kind not in _CT_CLASSES:
        return DicomFile(f"modality {modality or 'unknown'}", path)
    words = _words(header.get("ImageType"))
    if any("LOCALIZER" in word for word in words):
        return DicomFile("CT localizer", path)
    holds_hu = header.get("RescaleIntercept") not in (None, "") and int(header.get("BitsStored") or 0) > 8
    if any(_CAPTURE_IMAGE.fullmatch(word) for word in words) or (kind == _CAPTURE_CLASS and not holds_hu):
        return DicomFile("secondary capture", path)
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return DicomFile("CT in colour", path)
    if not header.get("Rows") and kind and kind not in _CT_CLASSES:
        return DicomFile("CT without an image", path)
    identity, shape = _identity(header), None
    try:
        if not header.get("Rows") or not header.get("Columns"):
            raise DatasetError("a CT without rows and columns")
        shape = (int(header.Rows), int(header.Columns))
        lacking = _lacking(header, words)
        slices = () if lacking else tuple(_slices(path, header, identity))
    except DatasetError as error:
        return DicomFile(str(error), path, identity, shape=shape, is_damaged=True)
    except DICOM_ERRORS as error:
        return DicomFile(f"CT with an unreadable header ({error})", path, identity, shape=shape, is_damaged=True)
    return DicomFile(lacking or "slices", path, identity, slices, shape)


def _words(values: Any) -> list[str]:
    return [str(word).strip().upper() for word in ([values] if isinstance(values, str) else values or ())]


def _lacking(header: Any, words: list[str]) -> str | None:
    """Why a CT is no slice in HU, in words; nobody need look at it."""
    transform = functional_group(header, 0, "PixelValueTransformationSequence") or header
    quantity = str(transform.get("RescaleType") or "").strip().upper()
    shown = [quantity] * bool(_NO_HU_TYPE.fullmatch(quantity)) + [
        word for word in words if _NO_HU_IMAGE.fullmatch(word)
    ]
    if shown:
        return f"CT of another quantity than HU ({shown[0]})"
    if header.get("ModalityLUTSequence") or transform.get("ModalityLUTSequence"):
        return "CT with a modality LUT in place of a rescale slope"
    is_single = not header.get("PerFrameFunctionalGroupsSequence") and int(header.get("NumberOfFrames") or 1) == 1
    if is_single and not all(
        header.get(tag) for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    ):
        return "CT without position, orientation or pixel spacing"
    return None


def _either(header: Any, tag: str, meta_tag: str) -> str:
    """An identifier, from the file's meta information where anonymising emptied it in the header."""
    return str(header.get(tag) or header.file_meta.get(meta_tag) or "")


def _identity(header: Any) -> SeriesIdentity:
    number = str(header.get("SeriesNumber") or "").strip()
    return SeriesIdentity(
        patient_id=str(header.get("PatientID") or "").strip(),
        study_date=str(header.get("StudyDate") or ""),
        study_uid=str(header.get("StudyInstanceUID") or ""),
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID") or ""),
        number=int(number) if number.lstrip("-").isdigit() else 0,
        series_uid=str(header.get("SeriesInstanceUID") or ""),
        description=str(header.get("SeriesDescription") or "").strip(),
        distinction=f"{header.get('SeriesTime') or ''} {header.get('ConvolutionKernel') or ''}",
    )


def _slices(path: Path, header: Any, identity: SeriesIdentity) -> Iterator[Slice]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    num_frames = int(header.get("NumberOfFrames") or len(per_frame) or 1)
    if num_frames > 1 and len(per_frame) != num_frames:
        raise DatasetError(f"a multi-frame CT with {num_frames} frames and functional groups of {len(per_frame)}")
    uid = _either(header, "SOPInstanceUID", "MediaStorageSOPInstanceUID")
    common = tuple((tag, str(header.get(tag) or "")) for tag in _PHASE_TAGS)
    for frame in range(num_frames):

        def value(group: str, name: str, frame: int = frame) -> Any:
            holder = functional_group(header, frame, group) if per_frame else header
            return None if holder is None else holder.get(name)

        position = tuple(float(number) for number in value("PlanePositionSequence", "ImagePositionPatient") or ())
        directions = checked_directions(value("PlaneOrientationSequence", "ImageOrientationPatient"))
        spacing = tuple(float(number) for number in value("PixelMeasuresSequence", "PixelSpacing") or ())
        numbers = np.array([*position, *spacing])
        if directions is None or (len(position), len(spacing)) != (3, 2) or not np.isfinite(numbers).all():
            raise DatasetError(
                f"CT without position, orientation or pixel spacing in frame {frame + 1} of {num_frames}"
            )
        rescale = [value("PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept")]
        slope, intercept = (
            float(default if one in (None, "") else one) for one, default in zip(rescale, (1, 0), strict=True)
        )
        if min(spacing) <= 0 or slope == 0 or not np.isfinite([slope, intercept]).all():
            raise DatasetError(f"CT with the pixel spacing {spacing}, rescale slope {slope}, intercept {intercept}")
        yield Slice(
            path=path,
            frame=frame,
            uid=uid,
            position_mm=position,
            directions=directions,
            spacing_mm=(spacing[0], spacing[1]),
            num_rows=int(header.Rows),
            num_columns=int(header.Columns),
            slope=slope,
            intercept=intercept,
            phase=(*common, *_frame_values(per_frame[frame]), ("file", str(path))) if per_frame else common,
            identity=identity,
            is_rescaled=all(one not in (None, "") for one in rescale),
        )


def _frame_values(group: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All that a frame's functional groups say of it, save where it lies and what its values mean, by name."""
    for element in group:
        key = element.keyword or str(element.tag)
        if key in _OF_GEOMETRY_OR_VALUES:
            continue
        if element.VR == "SQ":
            for item in element.value or ():
                yield from _frame_values(item, f"{name}{key}.")
        elif key == "DimensionIndexValues":
            yield from ((f"{name}{key}.{place}", str(one)) for place, one in enumerate(_words(element.value)))
        else:
            yield f"{name}{key}", str(element.value)
