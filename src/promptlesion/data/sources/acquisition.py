"""What of a DICOM header travels into a dataset: how the scan was made, never whose it is.

No free text is copied. Numbers must lie in the range of what they measure, makers are in a list, and kernels have the
form that makers give them, so a name that somebody typed into a technical field stays behind too.
"""

import math
import re
from typing import Any

from promptlesion.data.sources.dicom_slices import functional_group

_NUMBERS = {  # tag: (key, lowest, highest)
    "KVP": ("tube_voltage_kv", 40.0, 200.0),
    "XRayTubeCurrent": ("tube_current_ma", 1.0, 2000.0),
    "Exposure": ("exposure_mas", 0.1, 10000.0),
    "SliceThickness": ("slice_thickness_mm", 0.05, 50.0),
    "ReconstructionDiameter": ("reconstruction_diameter_mm", 10.0, 1000.0),
    "SpiralPitchFactor": ("pitch", 0.01, 5.0),
    "CTDIvol": ("ctdi_vol_mgy", 0.001, 1000.0),
    "GantryDetectorTilt": ("gantry_tilt_degrees", -45.0, 45.0),
}
_GROUPS = {
    "KVP": "CTXRayDetailsSequence",
    "XRayTubeCurrent": "CTExposureSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "CTDIvol": "CTExposureSequence",
}
_MANUFACTURERS = {
    **{word: word.title() for word in ("SIEMENS", "PHILIPS", "TOSHIBA", "CANON", "HITACHI", "FUJIFILM", "SHIMADZU")},
    "NEUSOFT": "Neusoft",
    "UNITED IMAGING": "United Imaging",
    "UIH": "United Imaging",
    "GE ": "GE",
    "GENERAL ELECTRIC": "GE",
    "MARCONI": "Marconi",
    "PICKER": "Picker",
    "ELSCINT": "Elscint",
}
_KERNEL = re.compile(r"[BHIJQSTU][a-z]?\d{2}[a-z]?|FC\d{2}|[A-EL]|[IUY][A-D]")  # as the makers name theirs
_KERNEL_WORDS = {"STANDARD", "SOFT", "DETAIL", "BONE", "BONEPLUS", "LUNG", "CHEST", "EDGE", "ULTRA", "SHARP", "SMOOTH"}


def acquisition_of(header: Any) -> dict[str, object]:
    """Return the acquisition values of a CT header that may travel; what is missing or implausible is left out."""
    values: dict[str, object] = {}
    for tag, (key, low, high) in _NUMBERS.items():
        number = _number(header, tag)
        if number is not None and low <= number <= high:
            values[key] = round(number, 4)
    maker = f"{header.get('Manufacturer') or ''} ".upper()
    found = sorted({name for word, name in _MANUFACTURERS.items() if maker.startswith(word)})
    if found:
        values["manufacturer"] = found[0]
    kernel = header.get("ConvolutionKernel")
    words = [kernel] if isinstance(kernel, str) else list(kernel or ())
    if words and (_KERNEL.fullmatch(str(words[0])) or str(words[0]).upper() in _KERNEL_WORDS):
        values["kernel"] = str(words[0])
    if header.get("ContrastBolusAgent"):
        values["has_contrast_agent"] = True
    return values


def _number(header: Any, tag: str) -> float | None:
    """A finite number, from the header or from the functional group of the first frame or of all."""
    holders: list[Any] = [header, functional_group(header, 0, _GROUPS[tag]) if tag in _GROUPS else None]
    for holder in filter(None, holders):
        try:
            number = float(holder.get(tag))
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            return number
    return None
