"""What NRRD and MetaImage headers say and SimpleITK does not pass on: units, which way is left."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from promptlesion.data.volume import VolumeError

_MOST_HEADER_BYTES = 2**20
_FIELD = re.compile(r"([^:=]+?)\s*(?::=|:|=)\s*(.*)")
_MILLIMETRES = {
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1e-3),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e3),
}


def read_fields(path: Path) -> dict[str, str]:
    """Return the fields of a NRRD or MetaImage header, as text, by names in lower case."""
    with path.open("rb") as file:
        head = file.read(_MOST_HEADER_BYTES).replace(b"\r\n", b"\n")
    fields: dict[str, str] = {}
    for line in head.split(b"\n\n" if head.startswith(b"NRRD") else b"\0", 1)[0].split(b"\n"):
        match = _FIELD.fullmatch(line.decode("utf-8", errors="replace").strip())
        if match and not line.startswith(b"#"):
            fields[match.group(1).lower()] = match.group(2)
        if match and match.group(1).lower() == "elementdatafile":
            break
    return fields


def in_millimetres(
    affine: Float64[np.ndarray, "4 4"], fields: Mapping[str, str], path: Path
) -> tuple[Float64[np.ndarray, "4 4"], dict[str, str]]:
    """Return an affine in millimetres, and what was converted or assumed, by the words that `check` has for it."""
    of_space = _units(fields.get("space units") or fields.get("distanceunits"), path)
    of_axes = _units(None if "space directions" in fields else fields.get("units"), path)
    scaled = np.diag([*of_space, 1.0]) @ affine @ np.diag([*of_axes, 1.0])
    notes = {}
    if (of_space * of_axes != 1.0).any():
        notes["unit"] = "the header's unit converted to millimetres"
    if not _is_placed(fields):
        notes["no-affine"] = "no directions in the header: its orientation is a guess"
    return scaled, notes


def _units(text: str | None, path: Path) -> Float64[np.ndarray, "3"]:
    """Return millimetres in the units of three axes."""
    words = re.findall(r'"([^"]*)"', text or "") or (text or "").split()
    words = [word for word in words if word != "???"] or [""]
    words = words * 3 if len(words) == 1 else words[-3:]
    unknown = [word for word in words if word.strip().lower() not in _MILLIMETRES]
    if unknown or len(words) != 3:
        raise VolumeError(f"{path}: expected units of length, found {text}")
    return np.array([_MILLIMETRES[word.strip().lower()] for word in words])


def _is_placed(fields: Mapping[str, str]) -> bool:
    """Whether a header says which way is left."""
    if "space" in fields:
        is_anatomical = re.fullmatch(r"[a-z]+-[a-z]+-[a-z]+(-time)?|[RL][AP][SI]T?", fields["space"], re.I)
        return bool(is_anatomical) and "space directions" in fields
    return bool({"transformmatrix", "rotation", "orientation"} & set(fields))
