"""One scan and the lesions placed in it: painted in place, judged, and painted anew where they do not pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_statistics import SURROUNDINGS_MM, LesionMeasure, measure_lesion
from promptlesion.data.volume import Volume
from promptlesion.synthesis.blend import blend
from promptlesion.synthesis.placement import Box, PlacedLesion, paint_labels
from promptlesion.synthesis.quality import QualityLimits, reasons_against, seam_hu
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.seeding import derive_seed

_BATCH = 4
"""Lesions that go through the network together: what that takes must not grow with their number."""


@dataclass
class PaintedLesion:
    """A lesion and how it went: what was measured on the last attempt, and why earlier ones were refused."""

    lesion: PlacedLesion
    measure: LesionMeasure = field(default_factory=lambda: LesionMeasure(math.nan, math.nan, math.nan))
    seam_hu: float = math.nan
    attempts: int = 0
    rejections: list[str] = field(default_factory=list)
    is_accepted: bool = False


def paint_lesions(
    image: Volume,
    labels: Volume,
    lesions: Sequence[PlacedLesion],
    dataset: Dataset,
    synthesizer: Synthesizer,
    *,
    limits: Sequence[QualityLimits] | None,
    max_attempts: int,
    seed: int,
) -> list[PaintedLesion]:
    """Paint lesions into a scan and its label map, both in place; what never passes is in neither.

    Nothing but the boxes around the lesions is looked at, and no copy of the scan is made. A lesion that is painted
    again stays where it is and gets other noise.

    Args:
        image: the scan; its array is changed.
        labels: its label map; likewise.
        lesions: where to paint, far enough apart that no edge reaches another lesion.
        dataset: lesion types, hosts and label values.
        synthesizer: the method.
        limits: what each type has to keep, in prompt order; without them every lesion is kept.
        max_attempts: times a lesion is painted until it passes.
        seed: of the noise; a lesion's place in the list and the number of the attempt make it its own.
    """
    painted = [PaintedLesion(lesion) for lesion in lesions]
    for attempt in range(1, max_attempts + 1):
        waiting = [index for index, entry in enumerate(painted) if not entry.is_accepted]
        for first in range(0, len(waiting), _BATCH):
            batch = waiting[first : first + _BATCH]
            boxes = synthesizer.paint(
                image,
                [lesions[index] for index in batch],
                types=[lesions[index].type_index for index in batch],
                seeds=[derive_seed(seed, "lesion", index, attempt) for index in batch],
            )
            for index, box_hu in zip(batch, boxes, strict=True):
                painted[index].attempts = attempt
                _blend_and_judge(painted[index], box_hu, image, labels, dataset, synthesizer.edge_mm, limits)
    return painted


def _blend_and_judge(
    painted: PaintedLesion,
    box_hu: np.ndarray,
    image: Volume,
    labels: Volume,
    dataset: Dataset,
    edge_mm: float,
    limits: Sequence[QualityLimits] | None,
) -> None:
    """Put a painted box into the scan, and take it out again where it does not pass."""
    lesion = painted.lesion
    lesion_type = dataset.spec.lesions[lesion.type_index]
    before = image.array[lesion.box].copy()
    after = blend(before, box_hu, lesion.mask, spacing_mm=image.spacing_mm, edge_mm=edge_mm)
    image.array[lesion.box] = after
    near, mask = _with_surroundings(lesion, image)
    painted.measure = measure_lesion(
        image.array[near],
        mask,
        labels.array[near],
        host_labels=dataset.host_labels(lesion_type),
        lesion_labels=dataset.lesion_labels,
        spacing_mm=image.spacing_mm,
    )
    painted.seam_hu = seam_hu(before, after, lesion.mask, spacing_mm=image.spacing_mm, edge_mm=edge_mm)
    reasons = [] if limits is None else reasons_against(painted.measure, painted.seam_hu, limits[lesion.type_index])
    if reasons:
        painted.rejections.append("; ".join(reasons))
        image.array[lesion.box] = before
    else:
        painted.is_accepted = True
        paint_labels(labels.array, lesion, lesion_type.label)


def _with_surroundings(lesion: PlacedLesion, image: Volume) -> tuple[Box, np.ndarray]:
    """Return the box around a lesion that its contrast is measured in, and its mask there."""
    reach = [math.ceil(SURROUNDINGS_MM / side) for side in image.spacing_mm]
    sides = [
        (max(0, side.start - margin), min(length, side.stop + margin))
        for side, margin, length in zip(lesion.box, reach, image.shape, strict=True)
    ]
    x, y, z = (slice(*side) for side in sides)
    padding = [(side.start - start, stop - side.stop) for side, (start, stop) in zip(lesion.box, sides, strict=True)]
    return (x, y, z), np.pad(lesion.mask, padding)
