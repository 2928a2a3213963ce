"""Criteria of painted lesions: what they measure, by lesions whose figures are known, and how they are laid out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measure.criteria import CRITERIA, INFORMATION, CriterionRow, criteria_rows, met
from measure.criteria_tables import Cell, Table, criteria_table, parts_table, summary_table

from promptlesion.data.lesion_appearance import UNITS
from promptlesion.evaluation.appearance import Measured
from promptlesion.evaluation.asked_attributes import AskedLesion, asked_rows

OPTIONS: dict[str, Any] = {"seed": 0, "num_resamples": 200}


def _made_up(num_lesions: int = 24, first: int = 0, **changes: Any) -> Measured:
    """Lesions whose outer HU is half their core's plus 20, and whose edge is 0.4 / mm of contrasts of both signs."""
    number = np.arange(first, first + num_lesions)
    core_hu = 60.0 + 5 * (number % 7)
    contrast_hu = 40.0 * (number % 2) - 10 + number % 5
    columns = dict.fromkeys(UNITS, np.full(num_lesions, 10.0)) | {
        "mean_hu": core_hu - 5,
        "core_hu": core_hu,
        "outer_hu": 20 + core_hu / 2,
        "contrast_hu": contrast_hu,
        "edge_hu_per_mm": 0.4 * contrast_hu,
    }
    values = np.column_stack([columns[name] * np.ones(num_lesions) for name in UNITS])
    for name, change in changes.items():
        values[:, list(UNITS).index(name)] = change(values[:, list(UNITS).index(name)])
    return Measured(values, [f"case_{index // 3}" for index in range(num_lesions)])


def _judged(painted: Measured, asked: Any = (), real: Measured | None = None) -> dict[str, list[CriterionRow]]:
    found: dict[str, list[CriterionRow]] = {}
    for row in criteria_rows({"tumor": real or _made_up()}, {"tumor": painted}, asked, **OPTIONS):
        found.setdefault(row.criterion, []).append(row)
    return found


def test_a_copy_meets_every_criterion() -> None:
    found = _judged(_made_up())
    rows = [row for every in found.values() for row in every]
    assert set(found) == {*CRITERIA, *INFORMATION}
    assert all(met(rows, criterion) for criterion in CRITERIA)
    assert not any(met(rows, criterion) for criterion in INFORMATION)
    assert [found[name][0].found.value for name in ("mean", "spread", "outer")] == pytest.approx([0, 1, 0])
    assert [row.found.value for row in found["edge"]] == pytest.approx([0, 1])


def test_ratios_are_judged_by_their_limits_and_say_where_the_interval_lies() -> None:
    found = _judged(_made_up(std_hu=lambda hu: 1.5 * hu, noise_hu=lambda hu: 0.9 * hu))
    (spread,), (noise,) = found["spread"], found["noise"]
    assert (spread.found.value, spread.is_met, spread.interval) == (pytest.approx(1.5), False, "outside")
    assert (noise.found.value, noise.is_met, noise.interval) == (pytest.approx(0.9), True, "inside")
    uneven = _made_up(noise_hu=lambda hu: hu * np.where(np.arange(len(hu)) < len(hu) / 3, 2.0, 0.6))
    (noise,) = _judged(uneven)["noise"]
    assert (noise.is_met, noise.interval) == (True, "across")


def test_outer_and_edge_are_compared_with_real_lesions_of_the_same_core_and_contrast() -> None:
    # Brighter cores and other contrasts alone are no error, for the real lesions' line says what goes with them.
    brighter = _made_up(
        core_hu=lambda hu: hu + 60,
        outer_hu=lambda hu: hu + 30,
        contrast_hu=lambda hu: hu + 100,
        edge_hu_per_mm=lambda edge: edge + 40,
    )
    found = _judged(brighter)
    assert (found["outer"][0].found.value, found["edge"][0].found.value) == pytest.approx((0, 0))
    real = _made_up()
    found = _judged(_made_up(outer_hu=lambda hu: hu - 12, edge_hu_per_mm=lambda edge: edge + 1))
    (outer,), edge = found["outer"], found["edge"][0]
    assert (outer.found.value, outer.found.low, outer.found.high) == pytest.approx((-12, -12, -12))
    assert (outer.is_met, outer.at_most) == (False, 10)
    assert edge.found.value == pytest.approx(1 / np.abs(real.column("edge_hu_per_mm")).mean())
    assert edge.reference.value == pytest.approx(real.column("edge_hu_per_mm").mean())
    assert edge.painted.value == pytest.approx(real.column("edge_hu_per_mm").mean() + 1)


def test_an_edge_too_soft_everywhere_shows_in_the_slope_on_contrast() -> None:
    _, slope = _judged(_made_up(edge_hu_per_mm=lambda edge: edge / 2))["edge"]
    assert (slope.found.value, slope.is_met) == (pytest.approx(0.5), None)


def test_the_line_of_real_lesions_is_fitted_again_in_every_draw() -> None:
    noise = np.random.default_rng(0).normal(0, 8, 24)
    real = _made_up(outer_hu=lambda hu: hu + noise)
    far = _made_up(core_hu=lambda hu: hu + 100, outer_hu=lambda hu: hu + 50)
    (found,) = _judged(far, real=real)["outer"]
    slope, intercept = np.polyfit(real.column("core_hu"), real.column("outer_hu"), 1)
    expected = (far.column("outer_hu") - slope * far.column("core_hu") - intercept).mean()
    assert found.found.value == pytest.approx(expected)
    low, high = found.found.low, found.found.high
    assert low is not None and high is not None and high - low > 20  # of a line held fast it would be under 5


def test_lesions_that_could_not_be_measured_do_not_count() -> None:
    def one_missing(values: Any) -> Any:
        return np.where(np.arange(len(values)) == 0, np.nan, values)

    found = _judged(_made_up(edge_hu_per_mm=one_missing, noise_hu=one_missing, outer_hu=one_missing))
    assert [found[name][0].num_painted for name in ("edge", "noise", "outer", "mean")] == [23, 23, 23, 24]
    assert all(met(found[name], name) for name in ("edge", "noise", "outer"))
    nothing = _judged(_made_up(noise_hu=lambda hu: hu * np.nan))["noise"]
    assert (nothing[0].found.value, nothing[0].is_met, nothing[0].interval) == (None, False, None)


def test_the_mean_is_judged_by_what_was_asked_for_where_that_is_known() -> None:
    darker = _made_up(mean_hu=lambda hu: hu - 20)
    lesions = [
        AskedLesion(group, "tumor", "mean_hu", float(hu), float(hu) + 2)
        for hu, group in zip(darker.column("mean_hu"), darker.groups, strict=True)
    ]
    found = _judged(darker, asked_rows(lesions, ["tumor"], **OPTIONS))
    apart, slope, correlation, share = found["mean"]
    assert [row.found.value for row in (apart, slope, correlation, share)] == pytest.approx([2, 1, 1, 1])
    assert [row.is_met for row in (apart, slope, correlation, share)] == [True, True, True, None]
    assert (apart.at_least, apart.at_most, slope.at_least, correlation.at_least) == (None, 8, 0.9, 0.9)
    assert found["mean_less_real"][0].found.value == pytest.approx(-20)
    assert not met(_judged(darker)["mean"], "mean")
    constant = [replace(each, painted=70.0) for each in lesions]
    assert not met(_judged(darker, asked_rows(constant, ["tumor"], **OPTIONS))["mean"], "mean")


def test_a_type_that_was_not_painted_is_left_out() -> None:
    assert criteria_rows({"tumor": _made_up(), "cyst": _made_up()}, {"tumor": _made_up()}, (), **OPTIONS) == (
        criteria_rows({"tumor": _made_up()}, {"tumor": _made_up()}, (), **OPTIONS)
    )


def test_the_short_tables_count_what_is_met() -> None:
    real = {"tumor": _made_up(), "cyst": _made_up()}
    wide = {"tumor": _made_up(std_hu=lambda hu: 2 * hu), "cyst": _made_up(outer_hu=lambda hu: hu - 12)}
    cohorts = {
        "copy": criteria_rows(real, real, (), **OPTIONS),
        "wide": criteria_rows(real, wide, (), **OPTIONS),
    }
    summary = summary_table(cohorts)
    assert [[cell.text for cell in (*line[:3], line[-1])] for line in summary.lines] == [
        ["tumor", "copy", "24/24", "6/6"],
        ["cyst", "copy", "24/24", "6/6"],
        ["tumor", "wide", "24/24", "5/6"],
        ["cyst", "wide", "24/24", "5/6"],
    ]
    assert summary.lines[2][summary.columns.index("spread")] == Cell("2.00", is_met=False)
    copied, widened = parts_table(cohorts).lines
    columns = parts_table(cohorts).columns
    assert (copied[-1].text, widened[-1].text) == ("12/12", "10/12")
    assert [widened[columns.index(name)].text for name in ("spread", "outer")] == ["1.50 (1/2)", "6.0 (1/2)"]
    written = criteria_table(cohorts).markdown()
    assert (
        "| tumor | wide | spread | std_hu: painted over real | 24/24 | 0.85 to 1.15 | 10 | 20 "
        "| 2.00 (2.00 to 2.00) | no | outside |" in written
    )


def test_a_table_marks_what_is_met() -> None:
    table = Table(("name", "figure"), ((Cell("a"), Cell("1.0", is_met=True)), (Cell("longer"), Cell("10.0"))))
    assert table.markdown() == "| name | figure |\n| --- | --- |\n| a | **1.0** |\n| longer | 10.0 |\n"
    assert table.plain() == "name    figure\na          1.0*\nlonger    10.0\n"
