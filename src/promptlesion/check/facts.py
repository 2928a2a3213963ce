"""What is known of a case before it is read, and what was measured of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from promptlesion.check.finding import Finding
from promptlesion.check.intensity import HUFacts
from promptlesion.check.thumbnail import Thumbnail
from promptlesion.evaluation.palette import Color


@dataclass(frozen=True)
class CaseFiles:
    """Where a case should be, and what is known about the dataset before it is read."""

    name: str
    image_path: Path
    label_path: Path
    labels: Mapping[str, int] | None
    """Of dataset.json; None where that cannot be read."""
    lesion_labels: tuple[int, ...]
    colors: Mapping[int, Color]
    window_hu: tuple[float, float]


@dataclass(frozen=True)
class LabelFacts:
    """One structure of a label map."""

    num_voxels: int
    volume_ml: float
    mean_hu: float
    lowest_hu: int
    hu_counts: Int64[np.ndarray, " hu"]
    """How often each HU from the lowest to the highest inside occurs there, between -1100 and 3200."""
    place: tuple[float, float, float]
    """Centre within the body's bounding box, RAS+: -0.5 is left, back and foot end, 0.5 right, front and head."""


@dataclass(frozen=True)
class LesionFacts:
    """One lesion as it was annotated, on the scan's own grid."""

    label: int
    center_mm: tuple[float, float, float]
    num_voxels: int
    diameter_mm: float
    """Of the sphere of equal volume."""
    extent_mm: float
    """Longest side of the bounding box."""
    mean_hu: float


@dataclass(frozen=True)
class CaseFacts:
    """What could be measured; what could not be is None or empty."""

    name: str
    findings: tuple[Finding, ...] = ()
    shape: tuple[int, int, int] | None = None
    """Voxels in RAS+ order."""
    spacing_mm: tuple[float, float, float] | None = None
    axis_codes: str = ""
    """Orientation the file is stored in, `LPS` say."""
    stored_type: str = ""
    tilt_degrees: float = 0.0
    seconds_read: float = 0.0
    hu: HUFacts | None = None
    labels: Mapping[int, LabelFacts] = field(default_factory=dict)
    lesions: tuple[LesionFacts, ...] = ()
    neighbours: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    """For each lesion label, how many voxels of each other label lie within two voxels of it."""
    voxel_hash: str = ""
    """Equal for equal voxels in RAS+ order."""
    content_hash: str = ""
    """Equal even where they are mirrored or turned."""
    coarse: Float32[np.ndarray, "16 16 16"] | None = None
    """The body on a small grid, to compare it with the others'."""
    thumbnails: tuple[Thumbnail, ...] = ()
