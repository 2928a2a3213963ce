"""Plausible is what lies in the range its type states, bounds included."""

import numpy as np
import pytest

from promptlesion.data.spec import LesionType
from promptlesion.synthesis.quality import is_plausible, mean_hu_inside


def test_the_mean_is_taken_inside_the_mask_alone_and_does_not_overflow() -> None:
    hu = np.full((40, 30, 20), -1000, dtype=np.int16)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[5:30, 2:20, 3:12] = True
    hu[mask] = 3000
    hu[5, 2, 3] = 3000 - mask.sum()
    assert mean_hu_inside(hu, mask) == 2999


@pytest.mark.parametrize(("mean_hu", "expected"), [(129.9, False), (130, True), (500, True), (700, True), (701, False)])
def test_the_range_decides(mean_hu: float, expected: bool) -> None:
    lesion = LesionType(name="plaque", label=3, host=("wall",), diameter_mm=(1, 6), hu=(130, 700))
    assert is_plausible(float(mean_hu), lesion) is expected
