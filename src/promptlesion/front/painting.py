"""One scan painted: a trained model, a scan and its label map go in, the same with new lesions comes out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from promptlesion.data.case_check import checked_labels, on_the_grid_of
from promptlesion.data.dataset import Dataset
from promptlesion.data.volume import Volume
from promptlesion.front.images import as_kind_of, as_volume, scan_of
from promptlesion.front.model import Model, dataset_of
from promptlesion.front.painted import Labels, Lesion, Painted, Scan
from promptlesion.masks.placement import PlacedLesion, place_lesion, place_mask
from promptlesion.masks.shape_bank import parse_shapes
from promptlesion.masks.sizes_and_shapes import build_drawing
from promptlesion.synthesis.asking import ask, asking
from promptlesion.synthesis.painting import paint_lesions, paint_together
from promptlesion.synthesis.quality import limits_of
from promptlesion.synthesis.synthetic_case import lesion_record
from promptlesion.training.seeding import numpy_generator

logger = logging.getLogger(__name__)
Millimetres = tuple[float, float, float]


def paint(
    model: Model,
    scan: Scan,
    labels: Labels,
    lesions: Mapping[str, int] | str,
    *,
    mask: object | None = None,
    center_mm: Millimetres | None = None,
    label_names: Mapping[str, int] | None = None,
    shapes: Sequence[str] = (),
    attributes: Mapping[str, Mapping[str, object]] | None = None,
    seed: int = 0,
) -> Painted[Scan, Labels]:
    """Paint lesions into a scan: anywhere in their hosts, around a point, or into a mask; scan and labels stay.

    Args:
        model: what paints.
        scan: CT in HU, of any spacing and orientation: what `read_scan` gave, a pair of array and affine (indices to
            millimetres, RAS), or an image of nibabel, SimpleITK or MONAI.
        labels: label map on the scan's grid, likewise.
        lesions: number of lesions by type, as `{"calcified_plaque": 2}`; a type alone is one of it.
        mask: the one lesion's, on the scan's grid: an image of any kind; an array where the scan is one of `read_scan`
            or a pair. It may lie outside the host.
        center_mm: the middle of the one lesion, in the scan's world, RAS; it lies in the host.
        label_names: values of the label map by name, which tell the hosts; `read_labels` may know them.
        shapes: where masks of a type are drawn from, `TYPE=PATH` or `TYPE=PATH:LABEL`.
        attributes: what the lesions shall be like, by type and attribute of `ATTRIBUTES`: a number, or lowest and
            highest, as `{"liver_tumor": {"contrast_hu": -30}}`; the rest is as training lesions have it.
        seed: of places, shapes and noise; the same one gives the same voxels.

    Returns:
        Image and labels with the lesions that pass the quality filter, of the same kind as they came; of every lesion
        where it is, what it is like, and whether it passed.

    Raises:
        ValueError: there is no room for a lesion, or scan, labels, mask or types are not as they should be.
    """
    image = scan_of(scan)
    label_map = on_the_grid_of("labels", image, as_volume(labels, "labels"), of="the scan")
    names = label_names if label_names is not None else getattr(labels, "names", {})
    dataset = asking(dataset_of(model, names), attributes or {}, model.synthesizer.card)
    own = image.with_array(checked_labels("labels", label_map.array, dataset.labels.values()).copy())
    types = _types(model, lesions)
    if (mask is not None) + (center_mm is not None) > (len(types) == 1):
        raise ValueError(f"mask, center_mm: expected one of them, with one lesion; found {len(types)} lesions")
    if mask is not None:
        placed = [_in_mask(model, image, own, dataset, types[0], _mask_on(scan, image, mask))]
    else:
        placed = _placed(model, image, own, dataset, types, center_mm, shapes, seed)
    placed = [
        ask(lesion, image, own, dataset, card=model.synthesizer.card, generator=numpy_generator(seed, "ask", number))
        for number, lesion in enumerate(placed)
    ]
    synthesizer, known = model.synthesizer, model.synthesizer.card.statistics.types
    limits = [limits_of(lesion, known.get(lesion.name)) for lesion in dataset.spec.lesions]
    work = paint_lesions(
        image,
        own,
        placed,
        dataset,
        edge_mm=synthesizer.card.edge_mm,
        limits=None if model.config.accept_all else limits,
        max_attempts=model.config.max_attempts,
        seed=seed,
    )
    (painted,) = paint_together([work], synthesizer)
    told = tuple(Lesion(**lesion_record(lesion, image, dataset)) for lesion in painted)
    for lesion in told:
        if not lesion.is_accepted:
            logger.warning("%s at %s is left out: %s", lesion.type, lesion.center_mm, lesion.rejections[-1])
    return Painted(as_kind_of(scan, image), as_kind_of(labels, own), told)


def _types(model: Model, lesions: Mapping[str, int] | str) -> list[int]:
    """Return the type of each lesion asked for, in prompt order."""
    counts = {lesions: 1} if isinstance(lesions, str) else lesions
    for name, count in counts.items():
        if name not in model.lesion_types or count < 0:
            raise ValueError(f"lesions: expected numbers of {', '.join(model.lesion_types)}; found {name!r}: {count}")
    types = [index for index, name in enumerate(model.lesion_types) for _ in range(counts.get(name, 0))]
    if not types:
        raise ValueError(f"lesions: expected at least one of {', '.join(model.lesion_types)}; found {dict(counts)}")
    return types


def _placed(
    model: Model,
    image: Volume,
    labels: Volume,
    dataset: Dataset,
    types: Sequence[int],
    center_mm: Millimetres | None,
    shapes: Sequence[str],
    seed: int,
) -> list[PlacedLesion]:
    """Find places for all lesions, off each other."""
    synthesizer, placed, sources = model.synthesizer, list[PlacedLesion](), parse_shapes(shapes)
    asked = tuple(lesion for index, lesion in enumerate(dataset.spec.lesions) if index in types)
    for lesion in asked:
        if lesion.shape == "real" and lesion.name not in {*sources, *synthesizer.card.own_lesions}:
            expected = f"expected masks that {lesion.name} takes its shape from, as in {lesion.name}=FOLDER, or a mask"
            raise ValueError(f"shapes: {expected}; found neither")
    drawing = build_drawing(
        replace(dataset, spec=dataset.spec.model_copy(update={"lesions": asked})),
        synthesizer.card.statistics,
        model.config,
        edge_mm=synthesizer.card.edge_mm,
        max_extent_mm=synthesizer.card.max_extent_mm,
        shapes=sources,
        own_lesions=synthesizer.card.own_lesions,
    )
    for number, kind in enumerate(types):
        placed.append(
            place_lesion(
                labels,
                dataset,
                kind,
                drawing=drawing,
                generator=numpy_generator(seed, "place", number),
                image=image,
                others=placed,
                at=None if center_mm is None else _voxel_at(image, center_mm),
            )
        )
    return placed


def _voxel_at(image: Volume, center_mm: Millimetres) -> tuple[int, int, int]:
    x, y, z = np.rint(np.linalg.solve(image.affine, [*center_mm, 1.0])[:3]).astype(int).tolist()
    if not all(0 <= index < length for index, length in zip((x, y, z), image.shape, strict=True)):
        raise ValueError(f"center_mm: expected a point in the scan, RAS; found {center_mm}, at voxel {(x, y, z)}")
    return x, y, z


def _mask_on(scan: object, image: Volume, mask: object) -> Bool[np.ndarray, "x y z"]:
    """Return a mask of any kind on the scan's grid, RAS+."""
    if isinstance(mask, np.ndarray):
        if isinstance(scan, Volume):
            mask = scan.with_array(mask)
        elif isinstance(scan, tuple):
            mask = (mask, scan[1])
    found = on_the_grid_of("mask", image, as_volume(mask, "mask"), of="the scan").array
    is_lesion: np.ndarray = found != 0
    return is_lesion


def _in_mask(
    model: Model, image: Volume, labels: Volume, dataset: Dataset, kind: int, mask: Bool[np.ndarray, "x y z"]
) -> PlacedLesion:
    synthesizer = model.synthesizer
    if synthesizer.card.own_lesions:
        raise ValueError(f"mask: expected none for {model.method}, which pastes lesions in their own shape; found one")
    return place_mask(
        mask, labels, dataset, kind, edge_mm=synthesizer.card.edge_mm, max_extent_mm=synthesizer.card.max_extent_mm
    )
