"""Painted against asked: closed forms, and what a cohort's provenance says."""

import json
from pathlib import Path

import numpy as np
import pytest

from promptlesion.evaluation.asked_attributes import AskedLesion, asked_lesions, asked_rows


def lesions(asked: np.ndarray, painted: np.ndarray, attribute: str = "mean_hu") -> list[AskedLesion]:
    return [
        AskedLesion(f"case_{index // 3}", "bright", attribute, float(x), float(y))
        for index, (x, y) in enumerate(zip(asked, painted, strict=True))
    ]


def test_slope_and_correlation_are_numpys() -> None:
    generator = np.random.default_rng(0)
    asked = generator.uniform(300, 900, 60)
    painted = 0.7 * asked + 100 + generator.normal(0, 20, 60)
    (row,) = asked_rows(lesions(asked, painted), ["dark", "bright"], seed=0)
    assert (row.lesion_type, row.attribute, row.num_lesions) == ("bright", "mean_hu", 60)
    assert row.slope.value == pytest.approx(np.polyfit(asked, painted, 1)[0])
    assert row.correlation.value == pytest.approx(np.corrcoef(asked, painted)[0, 1])
    assert row.absolute_difference.value == pytest.approx(np.abs(painted - asked).mean())
    assert row.slope.low is not None and row.slope.high is not None
    assert 0.6 < row.slope.low < 0.7 < row.slope.high < 0.8
    assert row.asked.value == pytest.approx(asked.mean()) and row.painted.value == pytest.approx(painted.mean())


def test_close_is_within_five_percent_or_eight_hu_of_the_mean() -> None:
    asked, painted = np.array([40.0, 40.0, 400.0, 400.0]), np.array([47.0, 49.0, 419.0, 421.0])
    (of_mean,) = asked_rows(lesions(asked, painted), ["bright"], seed=0)
    (of_spread,) = asked_rows(lesions(asked, painted, "std_hu"), ["bright"], seed=0)
    assert (of_mean.share_close.value, of_spread.share_close.value) == (0.5, 0.25)


def test_what_is_always_asked_alike_has_no_slope() -> None:
    (row,) = asked_rows(lesions(np.full(9, 0.1), np.arange(9.0)), ["bright"], seed=0)
    assert row.slope.value is None and row.correlation.value is None
    assert row.painted.value == pytest.approx(4)


def test_provenance_tells_what_was_asked_of_accepted_lesions(tmp_path: Path) -> None:
    asked = {"mean_hu": 640.0, "std_hu": 120.0, "low_frequency_hu": 30.0, "grain": None}
    entries = [
        {"type": "bright", "is_accepted": True, "asked": asked, "mean_hu": 600.0, "painted": {"std_hu": 90.0}},
        {"type": "bright", "is_accepted": False, "asked": {"mean_hu": 640.0}, "mean_hu": 1.0},
        {"type": "bright", "is_accepted": True, "mean_hu": 600.0},
    ]
    (tmp_path / "provenance.jsonl").write_text(json.dumps({"case": "one", "lesions": entries}) + "\n")
    assert asked_lesions(tmp_path) == [
        AskedLesion("one", "bright", "mean_hu", 640.0, 600.0),
        AskedLesion("one", "bright", "std_hu", 120.0, 90.0),
    ]
    assert asked_lesions(tmp_path / "nowhere") == []
    assert asked_rows([], ["bright"], seed=0) == ()
