"""Lesions placed in scans: painted in place, judged, and painted anew where they do not pass.

What paints a scan is a generator that says what it wants painted next and is given it, so that lesions of several scans
go through the network together.
"""

import math
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Event
from typing import TypeVar

import numpy as np

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_attributes import AttributeRow, as_row, measure_attributes
from promptlesion.data.lesion_statistics import SURROUNDINGS_MM, LesionMeasure, measure_lesion
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion, paint_labels
from promptlesion.synthesis.blend import blend
from promptlesion.synthesis.quality import QualityLimits, reasons_against, seam_hu
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.training.seeding import derive_seed

LESIONS_OF_A_SCAN = 4
"""Lesions of one scan that go through the network together: what that takes must not grow with their number."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Wanted:
    """Lesions of a scan that are to be painted next, and their seeds."""

    image: Volume
    lesions: Sequence[PlacedLesion]
    seeds: Sequence[int]


Painting = Generator[Wanted, list[np.ndarray], Result]
"""Work on one scan or several, one after another: is sent the HU of the boxes it wants, and returns a result."""


@dataclass
class PaintedLesion:
    """A lesion and how it went: what was measured on the last attempt, and why earlier ones were refused."""

    lesion: PlacedLesion
    measure: LesionMeasure = field(default_factory=lambda: LesionMeasure(math.nan, math.nan, math.nan))
    attributes: AttributeRow = field(default_factory=lambda: as_row({}))
    seam_hu: float = math.nan
    attempts: int = 0
    rejections: list[str] = field(default_factory=list)
    is_accepted: bool = False


def paint_lesions(
    image: Volume,
    labels: Volume,
    lesions: Sequence[PlacedLesion],
    dataset: Dataset,
    *,
    edge_mm: float,
    limits: Sequence[QualityLimits] | None,
    max_attempts: int,
    seed: int,
) -> Painting[list[PaintedLesion]]:
    """Paint lesions into a scan and its label map, both in place; what never passes is in neither.

    Nothing but the boxes around the lesions is looked at, and no copy of the scan is made. A lesion that is painted
    again stays where it is and gets other noise.

    Args:
        lesions: where to paint, far enough apart that no edge reaches another lesion.
        limits: what each type has to keep, in prompt order; without them every lesion is kept.
        seed: of the noise; a lesion's place in the list and the number of the attempt make it its own.
    """
    painted = [PaintedLesion(lesion) for lesion in lesions]
    for attempt in range(1, max_attempts + 1):
        waiting = [index for index, entry in enumerate(painted) if not entry.is_accepted]
        for first in range(0, len(waiting), LESIONS_OF_A_SCAN):
            batch = waiting[first : first + LESIONS_OF_A_SCAN]
            seeds = [derive_seed(seed, "lesion", index, attempt) for index in batch]
            boxes = yield Wanted(image, [lesions[index] for index in batch], seeds)
            for index, box_hu in zip(batch, boxes, strict=True):
                painted[index].attempts = attempt
                _blend_and_judge(painted[index], box_hu, image, labels, dataset, edge_mm, limits)
    return painted


def paint_together(
    works: Sequence[Painting[Result]],
    synthesizer: Synthesizer,
    *,
    turn: AbstractContextManager[object] | None = None,
    stopped: Event | None = None,
) -> list[Result]:
    """Do several works side by side, and return their results.

    In turns: what all of them want next is painted, `batch_size` lesions of the method at a time, and each goes on
    until it wants more. Which lesions meet in a batch depends on the works and the method's `batch_size` alone.

    Args:
        turn: held while the method paints, a lock where several threads share it.
        stopped: once it is set, no batch is begun.

    Raises:
        CancelledError: `stopped` is set.
    """
    turn, stopped = turn or nullcontext(), stopped or Event()
    results: dict[int, Result] = {}
    wanted = {index: _go_on(work, None, index, results) for index, work in enumerate(works)}
    while waiting := {index: want for index, want in wanted.items() if want is not None}:
        with turn:
            boxes = iter(_paint(list(waiting.values()), synthesizer, stopped))
        wanted = {
            index: _go_on(works[index], [next(boxes) for _ in want.lesions], index, results)
            for index, want in waiting.items()
        }
    return [results[index] for index in range(len(works))]


def _go_on(
    work: Painting[Result], boxes: list[np.ndarray] | None, index: int, results: dict[int, Result]
) -> Wanted | None:
    """Return what a work wants next; where it is done, note its result."""
    try:
        return next(work) if boxes is None else work.send(boxes)
    except StopIteration as end:
        results[index] = end.value
        return None


def _paint(wanted: Sequence[Wanted], synthesizer: Synthesizer, stopped: Event) -> list[np.ndarray]:
    flat = [
        (want.image, lesion, seed) for want in wanted for lesion, seed in zip(want.lesions, want.seeds, strict=True)
    ]
    painted: list[np.ndarray] = []
    for first in range(0, len(flat), synthesizer.card.batch_size):
        if stopped.is_set():
            raise CancelledError
        images, lesions, seeds = zip(*flat[first : first + synthesizer.card.batch_size], strict=True)
        types = [lesion.type_index for lesion in lesions]
        painted += synthesizer.paint(images, lesions, types=types, seeds=seeds)
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
    near = lesion.widened(image, margin_mm=SURROUNDINGS_MM)
    painted.measure = measure_lesion(
        image.array[near.box],
        near.mask,
        labels.array[near.box],
        host_labels=dataset.host_labels(lesion_type),
        lesion_labels=dataset.lesion_labels,
        spacing_mm=image.spacing_mm,
    )
    painted.attributes = measure_attributes(
        image.array[near.box], near.mask, image.spacing_mm, contrast_hu=painted.measure.contrast_hu
    )
    painted.seam_hu = seam_hu(before, after, lesion.mask, spacing_mm=image.spacing_mm, edge_mm=edge_mm)
    reasons = [] if limits is None else reasons_against(painted.measure, painted.seam_hu, limits[lesion.type_index])
    if reasons:
        painted.rejections.append("; ".join(reasons))
        image.array[lesion.box] = before
    else:
        painted.is_accepted = True
        paint_labels(labels.array, lesion, lesion_type.label)
