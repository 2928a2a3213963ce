"""Real lesions as masks to paint, new masks in turn, and painting in memory."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_instances import find_lesions
from promptlesion.masks.placement import PlacementError
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer
from promptlesion.synthesis.trial_painting import (
    blend_masks,
    lesions_in_place,
    paint_masks,
    scans_with_new_masks,
    scans_with_own_masks,
    under_every_prompt,
    widened,
)

OPTIONS = {"edge_mm": 3.0, "max_extent_mm": 30.0}


def test_the_masks_of_real_lesions_make_up_the_label_map(tiny_data: Dataset) -> None:
    for case in tiny_data.cases:
        _, labels = read_case(tiny_data, case)
        drawn = np.zeros_like(labels.array)
        found = lesions_in_place(labels, tiny_data, **OPTIONS)
        for lesion in found:
            drawn[lesion.box][lesion.mask] = tiny_data.lesion_labels[lesion.type_index]
        np.testing.assert_array_equal(drawn, np.where(labels.array > 1, labels.array, 0))
        expected = find_lesions(labels.array, tiny_data.lesion_labels, labels.spacing_mm)
        assert [lesion.diameter_mm for lesion in found] == [instance.diameter_mm for instance in expected]


def test_boxes_leave_room_for_the_edge_and_lesions_too_large_are_left_out(tiny_data: Dataset) -> None:
    _, labels = read_case(tiny_data, tiny_data.cases[0])
    x, y, z = labels.spacing_mm
    for lesion in lesions_in_place(labels, tiny_data, edge_mm=3.0, max_extent_mm=30.0):
        occupied = np.argwhere(lesion.mask)
        margin = np.minimum(occupied.min(axis=0), np.array(lesion.mask.shape) - 1 - occupied.max(axis=0))
        assert (margin * (x, y, z) >= 3.0).all()
    assert lesions_in_place(labels, tiny_data, edge_mm=3.0, max_extent_mm=1.0) == ()


def test_painting_real_lesions_in_place_gives_what_was_asked_for(
    tiny_data: Dataset, noise_painter: Callable[..., Synthesizer]
) -> None:
    painter = noise_painter(tiny_data.spec)
    for scan in scans_with_own_masks(tiny_data, seed=1, **OPTIONS):
        before = scan.image.array.copy()
        painted = paint_masks(scan, painter, batch_size=1)
        for lesion, raw, hu in zip(
            scan.lesions, painted, blend_masks(scan, painted, edge_mm=painter.card.edge_mm), strict=True
        ):
            assert abs(hu[lesion.mask].mean() - (500.0, 20.0)[lesion.type_index]) < 40
            np.testing.assert_allclose(hu[lesion.mask], raw[lesion.mask], atol=0.5)
        np.testing.assert_array_equal(scan.image.array, before)


def test_new_masks_are_as_many_as_asked_for_of_every_type_and_depend_on_the_seed_alone(
    scans: Dataset, drawing: LesionDrawing
) -> None:
    first, again, other = (
        scans_with_new_masks(scans, num_per_type=7, drawing=drawing, seed=seed) for seed in (3, 3, 4)
    )
    types = [lesion.type_index for scan in first for lesion in scan.lesions]
    assert (types.count(0), types.count(1)) == (7, 7)
    assert len(first) == len(scans.cases)
    boxes = [
        [(scan.case, scan.seeds, lesion.box) for scan in drawn for lesion in scan.lesions] for drawn in (first, again)
    ]
    assert boxes[0] == boxes[1]
    assert boxes[0] != [(scan.case, scan.seeds, lesion.box) for scan in other for lesion in scan.lesions]
    seeds = [seed for scan in first for seed in scan.seeds]
    assert len(set(seeds)) == len(seeds)


def test_more_masks_of_a_type_than_there_is_room_for_are_an_error(scans: Dataset, drawing: LesionDrawing) -> None:
    with pytest.raises(PlacementError, match="bright: expected room for 2 masks in 5 scans; found it for 0"):
        scans_with_new_masks(scans, num_per_type=2, drawing=replace(drawing, edge_mm=30.0), seed=3)


def test_every_mask_comes_under_every_prompt_with_one_noise(
    scans: Dataset, noise_painter: Callable[..., Synthesizer], drawing: LesionDrawing
) -> None:
    painter = noise_painter(scans.spec)
    scan = scans_with_new_masks(scans, num_per_type=2, drawing=drawing, seed=3)[0]
    repeated, types = under_every_prompt(scan, num_types=2)
    assert types == (0, 1) * len(scan.lesions)
    assert repeated.lesions[::2] == repeated.lesions[1::2] == scan.lesions
    painted = paint_masks(repeated, painter, types=types, batch_size=3)
    for lesion, bright, dark in zip(scan.lesions, painted[::2], painted[1::2], strict=True):
        np.testing.assert_allclose((bright - dark)[lesion.mask], 480, atol=1e-3)


def test_as_many_masks_go_through_the_network_together_as_the_method_says(
    scans: Dataset, noise_painter: Callable[..., Synthesizer], drawing: LesionDrawing
) -> None:
    scan = scans_with_new_masks(scans, num_per_type=2, drawing=drawing, seed=3)[0]
    repeated, types = under_every_prompt(scan, num_types=2)
    number = len(types)
    assert number > 1
    for asked, expected in ((None, number - 1), (1, 1)):
        painter = noise_painter(scans.spec, batch_size=number - 1)
        paint_masks(repeated, painter, types=types, batch_size=asked)
        assert len(painter.calls[0]) == expected
        assert sum(len(call) for call in painter.calls) == number


def test_a_wider_box_holds_the_same_mask_and_the_same_painting(
    scans: Dataset, synthesizer: PromptLesionSynthesizer, drawing: LesionDrawing
) -> None:
    """Painted as the smaller box, where both are; the boxes end at the scan's edge."""
    scan = scans_with_new_masks(scans, num_per_type=2, drawing=replace(drawing, max_extent_mm=10.0), seed=3)[0]
    for margin_mm in (2.0, 500.0):
        wide = widened(scan, margin_mm=margin_mm)
        for lesion, wider in zip(scan.lesions, wide.lesions, strict=True):
            inner = tuple(
                slice(a.start - b.start, a.stop - b.start) for a, b in zip(lesion.box, wider.box, strict=True)
            )
            assert wider.center_voxel == lesion.center_voxel
            assert wider.mask.sum() == lesion.mask.sum()
            np.testing.assert_array_equal(wider.mask[inner], lesion.mask)
            assert all(side.start >= 0 and side.stop <= n for side, n in zip(wider.box, scan.image.shape, strict=True))
            assert [side.stop - side.start for side in wider.box] == list(wider.mask.shape)
    narrow = paint_masks(scan, synthesizer)
    for lesion, wider, hu, wider_hu in zip(
        scan.lesions, wide.lesions, narrow, paint_masks(wide, synthesizer), strict=True
    ):
        inner = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(lesion.box, wider.box, strict=True))
        np.testing.assert_allclose(wider_hu[inner], hu, atol=0.5)
