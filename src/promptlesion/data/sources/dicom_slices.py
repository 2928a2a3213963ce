"""DICOM slices: where each lies and whose it is. Files are opened here, and what breaks the rules is taken as it is."""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from promptlesion.data.sources.extra import looks_like_dicom
from promptlesion.data.spec import DatasetError

DICOM_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError),
    *(ValueError, struct.error, zlib.error, BytesLengthException, InvalidDicomError),
)
"""What pydicom raises for a file that is damaged or breaks the standard's rules."""

_DIRECTION_TOLERANCE = 1e-2


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
class Slice:
    """One CT slice: where its pixels are, where it lies (DICOM's LPS millimetres), and what its values mean.

    `directions` are those of a row and of a column, so column indices run along the first. `phase` holds, by name,
    what may tell two slices at one position apart. `is_rescaled` says whether slope and intercept were in the file.
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
    phase: tuple[tuple[str, str], ...]
    identity: SeriesIdentity
    is_rescaled: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (self.num_rows, self.num_columns)

    @property
    def place(self) -> str:
        """Its file, and which frame of a file that holds several."""
        return f"{self.path} (frame {self.frame + 1})" if self.frame else str(self.path)


@contextmanager
def leniently() -> Iterator[None]:
    """Let pydicom take files that break the standard's rules, as most archives hold some, without a remark on each.

    What is needed of a file is checked where it is used.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings(record=True), disable_value_validation():
        warnings.simplefilter("always")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def read_dicom(path: Path) -> Any:
    """Read a DICOM file with its pixels; one that names no transfer syntax has the one it was found to be written in.

    Raises `DatasetError` naming the file where it cannot be read.
    """
    with leniently():
        try:
            dataset = pydicom.dcmread(path, force=True)
            if not dataset.file_meta.get("TransferSyntaxUID"):
                is_implicit, is_little = dataset.original_encoding
                explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
                dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit
        except DICOM_ERRORS as error:
            raise DatasetError(f"{path}: expected a whole DICOM file, found a damaged one ({error})") from error
    return dataset


def read_header(path: Path, tags: list[str] | None = None) -> Any:
    """Read a DICOM file without its pixels, also one that lacks the preamble; `None` for a file of another format."""
    if not looks_like_dicom(path):
        return None
    with leniently():
        try:
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        except DICOM_ERRORS:
            return None


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
    errors = np.abs([np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column])
    return numbers if (errors < _DIRECTION_TOLERANCE).all() else None
