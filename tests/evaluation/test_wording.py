"""Figures and durations in words."""

from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.wording import duration_text, estimate_text, measure_text, signed_text


def test_durations() -> None:
    assert [duration_text(seconds) for seconds in (4.25, 59.0, 61.0, 3900.0)] == [
        "4.2 s",
        "59 s",
        "1 min 01 s",
        "1 h 05 min",
    ]


def test_measures() -> None:
    asked = [("edge_hu_per_mm", "HU/mm"), ("low_frequency_hu", "HU"), ("diameter_mm", "mm"), ("grain", "")]
    assert [measure_text(*one) for one in asked] == ["edge (HU/mm)", "low frequency (HU)", "diameter (mm)", "grain"]


def test_estimates() -> None:
    assert estimate_text(Estimate(value=None)) == signed_text(Estimate(value=None)) == "–"
    assert estimate_text(Estimate(value=0.25)) == "0.250"
    assert estimate_text(Estimate(value=0.000012, low=-1.0, high=0.0)) == "1.2e-05 [-1.000, 0.000]"
    assert signed_text(Estimate(value=0.25, low=0.1, high=0.4)) == "+0.250 [+0.100, +0.400]"
