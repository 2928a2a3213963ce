"""What needs the packages of the extra `dicom`: DICOM, NRRD and MetaImage files, known before they are read."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00", b"\x00\x08")  # of a file without preamble; the last is big endian


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(132)


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, with or without its preamble; links to nothing and devices do not."""
    start = _start(path) if path.is_file() else b""
    return start[128:] == b"DICM" or (len(start) == 132 and start[:2] in _FIRST_GROUPS)


def is_blank_file(path: Path) -> bool:
    """Whether a file is all but empty, or zeros where a format would show, as a broken transfer leaves it."""
    if not path.is_file():
        return False
    start = _start(path)
    return len(start) < 132 or not start.strip(b"\0")


def imported(package: str, *, needed_for: object) -> ModuleType:
    """Import a package of the extra, or say what to install."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ValueError(
            f"{needed_for}: expected the package {package}, found it not installed; pip install 'promptlesion[dicom]'"
        ) from error
