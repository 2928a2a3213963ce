"""Reading the two files of a case, and what is wrong with their headers, grids and values."""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Num, UInt8

from promptlesion.check.facts import CaseFacts, CaseFiles
from promptlesion.check.finding import Finding, Severity, in_mm
from promptlesion.data.case_check import check_hounsfield, check_same_grid, check_spacing, checked_labels
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import SHEAR_TOLERANCE, Volume, VolumeError, read_stored_type, read_volume

_OBLIQUE_DEGREES = 0.5
_REMEDIES = {
    "unreadable": "copy or export the file anew",
    "not-3d": "give one 3-D volume a file; split a series of volumes",
    "no-affine": "export the file anew with its geometry",
    "two-affines": "set both alike; nibabel and this package use the sform, SimpleITK and nnU-Net usually the qform",
}
"""By the word of what a file cannot be read for, or was read with doubts for."""


def _finding(severity: Severity, code: str, case: str, message: str, remedy: str = "") -> Finding:
    return Finding(severity, code, case, f"{case}: {message}", remedy)


def read_file(files: CaseFiles, path: Path, kind: str, findings: list[Finding]) -> Volume | None:
    """Read a file; what is wrong with it goes to the findings, under a word of its own where the header tells."""
    if not path.is_file():
        code = "missing-image" if kind == "CT" else "missing-labels"
        remedy = f"add it, or remove the case's {'label map' if kind == 'CT' else 'CT'}"
        findings.append(_finding("error", code, files.name, f"expected the {kind} {path}, found none", remedy))
        return None
    try:
        volume = read_volume(path)
    except (VolumeError, OSError, MemoryError) as error:
        code = error.code if isinstance(error, VolumeError) else "unreadable"
        findings.append(_finding("error", code, files.name, str(error) or type(error).__name__, _REMEDIES[code]))
        return None
    for code, note in volume.notes.items():
        severity: Severity = "warning" if code in _REMEDIES else "note"
        findings.append(_finding(severity, code, files.name, f"{path}: {note}", _REMEDIES.get(code, "")))
    dtype = read_stored_type(path)
    if kind == "CT" and dtype.itemsize > 4:
        message = f"expected 16-bit integers in {path}, found {dtype}: {dtype.itemsize // 2} times the disk and memory"
        findings.append(_finding("note", "wide-type", files.name, message))
    return volume


def measured_geometry(files: CaseFiles, image: Volume, findings: list[Finding]) -> CaseFacts:
    """Return shape, spacing and orientation of a CT; what is odd about them goes to the findings."""
    directions = image.affine[:3, :3] / np.array(image.spacing_mm)
    shear = image.shear
    tilt = float(np.degrees(np.arccos(np.clip(np.diag(directions), -1, 1)).max()))
    if shear > SHEAR_TOLERANCE:
        message = (
            f"expected axes at right angles, found {90 - np.degrees(np.arcsin(min(shear, 1))):.1f} degrees between "
            "two: a tilted gantry? Sizes in millimetres are not right then"
        )
        findings.append(_finding("warning", "sheared", files.name, message, "resample the series to a straight grid"))
    elif tilt > _OBLIQUE_DEGREES:
        message = f"the scan lies oblique by {tilt:.1f} degrees; it is kept so, as nothing is turned in between"
        findings.append(_finding("note", "oblique", files.name, message))
    try:
        check_spacing(files.name, image)
    except DatasetError as error:
        findings.append(Finding("error", "spacing", files.name, str(error), "export the file anew; is its unit mm?"))
    if max(image.spacing_mm) > 8 * min(image.spacing_mm):
        message = f"expected voxels of alike sides, found {in_mm(image.spacing_mm)} mm: lesions are few slices high"
        findings.append(_finding("warning", "anisotropic", files.name, message, "prefer a thinner reconstruction"))
    return CaseFacts(
        name=files.name,
        shape=image.shape,
        spacing_mm=image.spacing_mm,
        axis_codes="".join(nib.aff2axcodes(image.file_affine)),
        stored_type=str(read_stored_type(files.image_path)),
        tilt_degrees=tilt,
    )


def is_hounsfield(case: str, image: Num[np.ndarray, "x y z"], findings: list[Finding]) -> bool:
    """Whether the voxels are HU; if not, why goes to the findings."""
    try:
        check_hounsfield(case, image)
    except DatasetError as error:
        is_finite = image.dtype.kind != "f" or bool(np.isfinite(image).all())
        code = "not-hounsfield" if is_finite else "not-finite"
        findings.append(Finding("error", code, case, str(error), "export the scan in HU"))
        return False
    return True


def usable_labels(
    files: CaseFiles, image: Volume, labels: Volume | None, findings: list[Finding]
) -> UInt8[np.ndarray, "x y z"] | None:
    """Return the label map where it fits the CT's grid; unknown values become background."""
    if labels is None:
        return None
    known = range(256) if files.labels is None else list(files.labels.values())
    try:
        found = checked_labels(files.name, labels.array, known)
    except DatasetError as error:
        remedy = "name the values in dataset.json, or correct the label map"
        findings.append(Finding("error", "unknown-labels", files.name, str(error), remedy))
        found = np.where(np.isin(labels.array, list(known)), labels.array, 0).astype(np.uint8)
    if not found.any():
        message = f"expected a structure in {files.label_path.name}, found background alone"
        remedy = "such a case has neither lesions nor a host: label its organs, or remove it"
        findings.append(_finding("warning", "empty-labels", files.name, message, remedy))
    try:
        check_same_grid(files.name, image, labels)
    except DatasetError as error:
        remedy = "resample the label map to the CT, or find the CT it was drawn on"
        findings.append(Finding("error", "label-grid", files.name, str(error), remedy))
        return None
    return found
