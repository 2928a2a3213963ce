"""What the training lesions of each type are like: size, attenuation, contrast to the host, and number in a scan.

Measured once, when a method is trained, and kept in its card: synthesis draws from it and is judged against it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int16, Shaped, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy import ndimage

from promptlesion.data.cache import CachedCase
from promptlesion.data.lesion_attributes import NAMES, AttributeRow, measure_attributes, stacked
from promptlesion.data.lesion_instances import LesionInstance, cut_instance
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.checkpoint import CheckpointError

SURROUNDINGS_MM = 5.0
"""How far around a lesion its host is taken for comparison."""
CARD_KEY = "lesion_statistics"
_MOST_KEPT = 500


class TypeStatistics(BaseModel):
    """The training lesions of one type, one entry a lesion in all lists but the last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    diameters_mm: tuple[float, ...] = Field(description="Diameter of the sphere of the same volume, in millimetres.")
    mean_hu: tuple[float, ...] = Field(description="Mean inside the lesion, in Hounsfield units.")
    std_hu: tuple[float, ...] = Field(description="Standard deviation inside the lesion, in Hounsfield units.")
    contrast_hu: tuple[float, ...] = Field(
        description="Mean inside less the mean of the host within 5 mm around, in Hounsfield units."
    )
    attributes: dict[str, tuple[float | None, ...]] = Field(
        default={}, description="Further attributes by name, see `ATTRIBUTES`; none in the card of an older model."
    )
    counts_per_case: tuple[int, ...] = Field(description="Lesions of this type in each training case.")

    @model_validator(mode="after")
    def _parallel(self) -> "TypeStatistics":
        known = (self.diameters_mm, self.mean_hu, self.std_hu, self.contrast_hu, *self.attributes.values())
        lengths = {len(values) for values in known}
        if len(lengths) > 1:
            raise ValueError(f"expected one entry a lesion in every list, found lists of {sorted(lengths)}")
        return self

    @property
    def rows(self) -> Float64[np.ndarray, "lesion attribute"]:
        """All that is known of every lesion, in the order of `ATTRIBUTES`; NaN where it is not."""
        known: dict[str, Sequence[float | None]] = {
            **self.attributes,
            "diameter_mm": self.diameters_mm,
            "mean_hu": self.mean_hu,
            "std_hu": self.std_hu,
            "contrast_hu": self.contrast_hu,
        }
        unknown = (None,) * len(self.mean_hu)
        columns = [np.array(known.get(name, unknown), dtype=np.float64) for name in NAMES]
        return np.stack(columns, axis=1) if self.mean_hu else stacked([])


class LesionStatistics(BaseModel):
    """The training lesions by type name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    types: dict[str, TypeStatistics] = Field(description="What the lesions of each type are like, by its name.")


@dataclass(frozen=True)
class LesionMeasure:
    """What one lesion is like in a scan, in Hounsfield units."""

    mean_hu: float
    std_hu: float
    contrast_hu: float


def measure_lesion(
    hu: Shaped[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    labels: UInt8[np.ndarray, "x y z"],
    *,
    host_labels: Sequence[int],
    lesion_labels: Sequence[int],
    spacing_mm: tuple[float, float, float],
) -> LesionMeasure:
    """Measure a lesion in a box that leaves 5 mm around it, or less at the scan's edge.

    Where nothing of the host is left within 5 mm, as of a wall that has become plaque all around, the contrast is to
    all that is no lesion; where nothing is left at all it is 0. The mask is of this lesion alone; the label map may
    hold it already or not yet. Other lesions, all that have `lesion_labels`, are no surroundings.
    """
    is_near = (ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= SURROUNDINGS_MM) & ~mask
    inside = hu[mask].astype(np.float64)
    contrast = 0.0
    for is_surroundings in (np.isin(labels, list(host_labels)), ~np.isin(labels, list(lesion_labels))):
        around = hu[is_near & is_surroundings]
        if around.size:
            contrast = float(inside.mean() - around.mean(dtype=np.float64))
            break
    return LesionMeasure(float(inside.mean()), float(inside.std()), contrast)


def lesion_row(
    case: CachedCase,
    lesion: LesionInstance,
    spec: DatasetSpec,
    labels: Mapping[str, int],
    *,
    image: Int16[np.ndarray, "x y z"] | None = None,
) -> AttributeRow:
    """Measure all attributes of a lesion of a case, at the spacing it is prepared at.

    `image` holds HU to measure instead of the case's own.
    """
    x, y, z = (math.ceil(SURROUNDINGS_MM / side) for side in spec.spacing_mm)
    lesion_type = spec.lesions[lesion.type_index]
    box, mask = cut_instance(case.labels, lesion, lesion_type.label, margin_voxels=(x, y, z))
    hu = np.asarray((case.image if image is None else image)[box])
    measured = measure_lesion(
        hu,
        mask,
        np.asarray(case.labels[box]),
        host_labels=[labels[name] for name in lesion_type.host],
        lesion_labels=[other.label for other in spec.lesions],
        spacing_mm=spec.spacing_mm,
    )
    return measure_attributes(hu, mask, spec.spacing_mm, contrast_hu=measured.contrast_hu)


def measure_lesions(cases: Sequence[CachedCase], spec: DatasetSpec, labels: Mapping[str, int]) -> LesionStatistics:
    """Measure every lesion of the cases, at the spacing they are prepared at; of a type's many, 500 evenly chosen."""
    types: dict[str, TypeStatistics] = {}
    for index, lesion_type in enumerate(spec.lesions):
        found = [(case, lesion) for case in cases for lesion in case.lesions if lesion.type_index == index]
        counts = [sum(lesion.type_index == index for lesion in case.lesions) for case in cases]
        kept = [found[number] for number in _evenly(len(found))]
        types[lesion_type.name] = _statistics([lesion_row(*own, spec, labels) for own in kept], counts)
    return LesionStatistics(types=types)


def read_statistics(card: Mapping[str, object], *, source: Path) -> LesionStatistics:
    """Return the statistics that the card of a trained method holds; `source` is the run, for the message.

    Raises:
        CheckpointError: an older version wrote the card, or it is damaged.
    """
    if CARD_KEY not in card:
        raise CheckpointError(
            f"{source}: expected {CARD_KEY} in the checkpoint's card, which sizes are drawn from; found none. An older "
            "version trained it: train it again"
        )
    try:
        return LesionStatistics.model_validate(card[CARD_KEY])
    except ValidationError as error:
        raise CheckpointError(
            f"{source}: expected readable {CARD_KEY} in the checkpoint's card; found {error}"
        ) from error


def _statistics(measured: Sequence[AttributeRow], counts: Sequence[int]) -> TypeStatistics:
    """Round to hundredths of a millimetre and tenths of a Hounsfield unit, which machines agree on."""
    columns = dict(zip(NAMES, stacked(measured).T, strict=True))
    further = [name for name in NAMES if name not in ("diameter_mm", "mean_hu", "std_hu", "contrast_hu")]
    return TypeStatistics(
        diameters_mm=tuple(columns["diameter_mm"].round(2).tolist()),
        mean_hu=tuple(columns["mean_hu"].round(1).tolist()),
        std_hu=tuple(columns["std_hu"].round(1).tolist()),
        contrast_hu=tuple(columns["contrast_hu"].round(1).tolist()),
        attributes={
            name: tuple(value if np.isfinite(value) else None for value in columns[name].round(1).tolist())
            for name in further
            if measured
        },
        counts_per_case=tuple(counts[index] for index in _evenly(len(counts))),
    )


def _evenly(count: int) -> list[int]:
    if count <= _MOST_KEPT:
        return list(range(count))
    return [round(place) for place in np.linspace(0, count - 1, _MOST_KEPT).tolist()]
