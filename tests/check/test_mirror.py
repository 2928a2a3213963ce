"""A label map on its scan, and on the scan's mirror image."""

import numpy as np
import pytest
from tests.check.conftest import body

from promptlesion.check.mirror import AXIS_SETS, mirrored_axes, named_axes


@pytest.mark.parametrize("axes", AXIS_SETS)
def test_every_mirroring_of_a_label_map_is_found(axes: tuple[int, ...]) -> None:
    image, labels = body()
    assert mirrored_axes(image.array, np.ascontiguousarray(np.flip(labels.array, axes))) == axes
    assert mirrored_axes(np.ascontiguousarray(np.flip(image.array, axes)), labels.array) == axes


@pytest.mark.parametrize("axes", [(), *AXIS_SETS])
def test_a_label_map_that_is_mirrored_with_its_scan_fits(axes: tuple[int, ...]) -> None:
    image, labels = (np.ascontiguousarray(np.flip(volume.array, axes)) for volume in body(1))
    assert mirrored_axes(image, labels) == ()


def test_nothing_is_said_of_what_looks_the_same_in_a_mirror_or_is_empty() -> None:
    image, labels = body()
    symmetric = np.zeros_like(labels.array)
    symmetric[8:-8, 8:-8, 8:-8] = 1
    assert mirrored_axes(image.array, symmetric) == ()
    assert mirrored_axes(image.array, np.zeros_like(labels.array)) == ()


def test_directions_have_names() -> None:
    assert named_axes((0,)) == "left-right"
    assert named_axes((1, 2)) == "front-back and head-foot"
