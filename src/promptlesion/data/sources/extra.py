"""Packages of the extra `dicom`, which only DICOM, NRRD and MetaImage files need."""

import struct
from importlib import import_module
from pathlib import Path
from types import ModuleType

DICOM_ERRORS = (
    *(AttributeError, EOFError, IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError),
    *(ValueError, struct.error),
)
"""What pydicom raises for a file that is damaged or breaks the standard's rules."""


def imported(package: str, *, needed_for: Path) -> ModuleType:
    """Import a package of the extra, or say what to install."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{needed_for}: expected the package {package} to read it, found it not installed; "
            "pip install 'promptlesion[dicom]'"
        ) from error
