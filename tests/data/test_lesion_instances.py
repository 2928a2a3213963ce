import math

import numpy as np
import pytest
from skimage.measure import label as skimage_label

from promptlesion.data.lesion_instances import cut_instance, find_lesions, sphere_diameter_mm

SPACING_MM = (0.5, 1.0, 2.0)
LABELS = (3, 4)
"""In prompt order."""


def test_two_types_are_counted_apart_and_in_prompt_order() -> None:
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[1:3, 2:5, 1:2] = 4
    labels[3:5, 2:5, 1:2] = 3
    labels[9:12, 8:10, 6:8] = 3
    found = find_lesions(labels, LABELS, SPACING_MM)
    assert [lesion.type_index for lesion in found] == [0, 0, 1]
    assert [lesion.num_voxels for lesion in found] == [6, 12, 6]
    assert found[0].bounding_box == (slice(3, 5), slice(2, 5), slice(1, 2))
    assert found[1].bounding_box == (slice(9, 12), slice(8, 10), slice(6, 8))
    assert found[1].volume_mm3 == pytest.approx(12.0)
    assert found[2].center_voxel[1:] == (3, 1)


def test_voxels_that_touch_at_a_corner_are_one_lesion() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1, 1, 1] = labels[2, 2, 2] = labels[4, 2, 2] = 3
    assert [lesion.num_voxels for lesion in find_lesions(labels, LABELS, SPACING_MM)] == [2, 1]


def test_the_center_of_a_crescent_lies_in_it_near_its_middle() -> None:
    x, y, z = np.ogrid[:30, :40, :6]
    radius = np.hypot((x - 15) * SPACING_MM[0], (y - 20) * SPACING_MM[1])
    labels = (3 * ((radius > 5) & (radius < 7) & (y > 18) & (z > 1))).astype(np.uint8)
    (lesion,) = find_lesions(labels, LABELS, SPACING_MM)
    assert labels[lesion.center_voxel] == 3
    centroid_mm = np.argwhere(labels).mean(axis=0) * SPACING_MM
    distances = np.linalg.norm(np.argwhere(labels) * SPACING_MM - centroid_mm, axis=1)
    assert np.linalg.norm(np.array(lesion.center_voxel) * SPACING_MM - centroid_mm) == pytest.approx(distances.min())


def test_the_diameter_of_a_ball_is_its_diameter() -> None:
    x, y, z = np.ogrid[:60, :30, :16]
    inside = np.hypot(np.hypot((x - 30) * 0.5, (y - 15) * 1.0), (z - 8) * 2.0) <= 10.0
    (lesion,) = find_lesions((4 * inside).astype(np.uint8), LABELS, SPACING_MM)
    assert lesion.diameter_mm == pytest.approx(20.0, rel=0.01)
    assert sphere_diameter_mm(4 / 3 * math.pi * 2.5**3) == pytest.approx(5.0)


def test_scikit_image_finds_the_same_components() -> None:
    labels = (np.random.default_rng(3).random((20, 15, 11)) < 0.08).astype(np.uint8) * 3
    components = skimage_label(labels, connectivity=3)
    expected = sorted(np.bincount(components.ravel())[1:])
    found = find_lesions(labels, LABELS, SPACING_MM)
    assert sorted(lesion.num_voxels for lesion in found) == expected
    for lesion in found:
        assert (components[lesion.bounding_box] == components[lesion.center_voxel]).sum() == lesion.num_voxels


def test_a_scan_without_lesions_has_none() -> None:
    assert find_lesions(np.full((4, 5, 6), 2, np.uint8), LABELS, SPACING_MM) == []


def test_a_lesion_is_cut_without_its_neighbours_and_within_the_scan() -> None:
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[0:3, 2:5, 1:3] = 3
    labels[4:6, 2:5, 1:3] = 3
    labels[3, 2:5, 1:3] = 4
    first, second, other = find_lesions(labels, LABELS, SPACING_MM)
    for lesion, label in ((first, 3), (second, 3), (other, 4)):
        box, mask = cut_instance(labels, lesion, label, margin_voxels=(2, 1, 3))
        whole = np.zeros(labels.shape, bool)
        whole[box] = mask
        assert whole.sum() == lesion.num_voxels
        assert whole[lesion.center_voxel]
        assert (labels[whole] == label).all()
    box, _ = cut_instance(labels, first, 3, margin_voxels=(2, 1, 3))
    assert box == (slice(0, 5), slice(1, 6), slice(0, 6))
