"""Lesions painted in memory, to measure a method: at the places of real lesions, or at new ones.

Every lesion of a scan is painted into the untouched scan, whatever else is painted there, so that several may share
a place and all of them go through the network together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Shaped

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_instances import cut_instance, find_lesions
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion, PlacementError, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.asking import ask
from promptlesion.synthesis.blend import blend
from promptlesion.synthesis.synthesizer import Synthesizer, SynthesizerCard
from promptlesion.training.seeding import derive_seed, numpy_generator

_TRIES_PER_MASK = 4


@dataclass(frozen=True, eq=False)
class MaskedScan:
    """A scan, the masks to paint into it one by one, and each one's seed of the noise."""

    case: str
    subject: str
    image: Volume
    lesions: tuple[PlacedLesion, ...]
    seeds: tuple[int, ...]


def lesions_in_place(
    labels: Volume, dataset: Dataset, *, edge_mm: float, max_extent_mm: float
) -> tuple[PlacedLesion, ...]:
    """Return the real lesions of a label map as masks to paint; those larger than the method can paint are left out."""
    x, y, z = (int(np.ceil(edge_mm / side)) for side in labels.spacing_mm)
    found = []
    for instance in find_lesions(labels.array, dataset.lesion_labels, labels.spacing_mm):
        extents_mm = [
            (side.stop - side.start) * mm for side, mm in zip(instance.bounding_box, labels.spacing_mm, strict=True)
        ]
        if max(extents_mm) <= max_extent_mm:
            label = dataset.lesion_labels[instance.type_index]
            box, mask = cut_instance(labels.array, instance, label, margin_voxels=(x, y, z))
            found.append(PlacedLesion(instance.type_index, box, mask, instance.diameter_mm, mask_origin="real"))
    return tuple(found)


def scans_with_own_masks(
    dataset: Dataset, *, edge_mm: float, max_extent_mm: float, seed: int, card: SynthesizerCard | None = None
) -> Iterator[MaskedScan]:
    """Yield every scan that has lesions, with their own masks and types; a lesion's seed is its own.

    With the card of a method that knows attributes they are asked for as in a cohort.
    """
    for case in dataset.cases:
        image, labels = read_case(dataset, case)
        lesions = lesions_in_place(labels, dataset, edge_mm=edge_mm, max_extent_mm=max_extent_mm)
        if lesions:
            seeds = tuple(derive_seed(seed, "own mask", case.name, index) for index in range(len(lesions)))
            if card is not None:
                lesions = tuple(
                    ask(lesion, image, labels, dataset, card=card, generator=numpy_generator(own, "ask"))
                    for lesion, own in zip(lesions, seeds, strict=True)
                )
            yield MaskedScan(case.name, case.subject, image, lesions, seeds)


def scans_with_new_masks(dataset: Dataset, *, num_per_type: int, drawing: LesionDrawing, seed: int) -> list[MaskedScan]:
    """Place as many masks of each type, scans taking turns; those that do not have a type's host are passed over.

    Returns:
        The scans that got a mask.

    Raises:
        PlacementError: too few masks of a type found a place.
    """
    scans = [(case, *read_case(dataset, case)) for case in dataset.cases]
    placed: dict[str, list[PlacedLesion]] = {case.name: [] for case in dataset.cases}
    for type_index, lesion_type in enumerate(dataset.spec.lesions):
        host = dataset.host_labels(lesion_type)
        with_host = [(case, image, labels) for case, image, labels in scans if np.isin(labels.array, host).any()]
        num_placed, failure = 0, "no scan has its host"
        for turn in range(_TRIES_PER_MASK * num_per_type if with_host else 0):
            case, image, labels = with_host[turn % len(with_host)]
            try:
                lesion = place_lesion(
                    labels,
                    dataset,
                    type_index,
                    drawing=drawing,
                    generator=numpy_generator(seed, "new mask", case.name, type_index, turn),
                    image=image,
                )
            except PlacementError as error:
                failure = f"{case.name}: {error}"
                continue
            placed[case.name].append(lesion)
            num_placed += 1
            if num_placed == num_per_type:
                break
        if num_placed < num_per_type:
            raise PlacementError(
                f"{lesion_type.name}: expected room for {num_per_type} masks in {len(scans)} scans; found it for "
                f"{num_placed} ({failure})"
            )
    return [
        MaskedScan(
            case.name,
            case.subject,
            image,
            tuple(placed[case.name]),
            tuple(derive_seed(seed, "new mask noise", case.name, index) for index in range(len(placed[case.name]))),
        )
        for case, image, _ in scans
        if placed[case.name]
    ]


def widened(scan: MaskedScan, *, margin_mm: float) -> MaskedScan:
    """Return the scan with every mask's box wider by a margin, less of it at the scan's edge."""
    return replace(scan, lesions=tuple(lesion.widened(scan.image, margin_mm=margin_mm) for lesion in scan.lesions))


def under_every_prompt(scan: MaskedScan, *, num_types: int) -> tuple[MaskedScan, tuple[int, ...]]:
    """Return the scan with every mask as often as there are types, with one seed, and the types to ask for in turn."""
    repeated = replace(
        scan,
        lesions=tuple(lesion for lesion in scan.lesions for _ in range(num_types)),
        seeds=tuple(seed for seed in scan.seeds for _ in range(num_types)),
    )
    return repeated, tuple(range(num_types)) * len(scan.lesions)


def paint_masks(
    scan: MaskedScan, synthesizer: Synthesizer, *, types: Sequence[int] | None = None, batch_size: int | None = None
) -> list[Float32[np.ndarray, "_ _ _"]]:
    """Return every box as the method paints it, without a quality filter and not blended.

    Args:
        scan: the masks.
        synthesizer: the method.
        types: to ask for; by default each mask's own.
        batch_size: masks that go through the network together; by default as many as the method says.
    """
    asked = [lesion.type_index for lesion in scan.lesions] if types is None else list(types)
    at_once = batch_size or synthesizer.card.batch_size
    painted = []
    for first in range(0, len(scan.lesions), at_once):
        part = slice(first, first + at_once)
        lesions = scan.lesions[part]
        images = [scan.image] * len(lesions)
        painted += synthesizer.paint(images, lesions, types=asked[part], seeds=scan.seeds[part])
    return painted


def blend_masks(
    scan: MaskedScan, painted: Sequence[Float32[np.ndarray, "_ _ _"]], *, edge_mm: float
) -> list[Shaped[np.ndarray, "_ _ _"]]:
    """Return every box of the scan with its painted lesion blended in, as a synthetic scan would have it."""
    return [
        blend(scan.image.array[lesion.box], hu, lesion.mask, spacing_mm=scan.image.spacing_mm, edge_mm=edge_mm)
        for lesion, hu in zip(scan.lesions, painted, strict=True)
    ]
