"""The odd case out is named, and nobody else."""

from dataclasses import replace

import numpy as np
import pytest
from tests.check.conftest import LABELS

from promptlesion.check.case_comparison import comparison_findings
from promptlesion.check.facts import CaseFacts, LabelFacts
from promptlesion.check.finding import Finding
from promptlesion.check.mirror import AXIS_SETS


def found(cases: list[CaseFacts], labels: dict[str, int] | None = None) -> list[Finding]:
    return comparison_findings(cases, LABELS if labels is None else labels, grid_spacing_mm=(2.0, 2.5, 3.0))


def without_labels(cases: list[CaseFacts]) -> list[CaseFacts]:
    return [replace(case, labels={}, lesions=()) for case in cases]


def mirrored(case: CaseFacts, axes: tuple[int, ...]) -> CaseFacts:
    assert case.coarse is not None
    return replace(case, coarse=np.ascontiguousarray(np.flip(case.coarse, axes)))


def placed(case: CaseFacts, places: dict[int, float]) -> CaseFacts:
    labels = dict(case.labels)
    for value, x in places.items():
        facts: LabelFacts = labels[value]
        labels[value] = replace(facts, place=(x, 0.0, 0.0))
    return replace(case, labels=labels)


def test_cases_alike_give_no_findings(examined: list[CaseFacts]) -> None:
    assert found(examined) == []


@pytest.mark.parametrize("axes", AXIS_SETS)
def test_the_flipped_scan_is_named_whatever_its_labels(examined: list[CaseFacts], axes: tuple[int, ...]) -> None:
    cases = without_labels(examined)
    cases[4] = mirrored(cases[4], axes)
    (finding,) = found(cases)
    assert (finding.code, finding.severity, finding.case) == ("flipped", "error", "case_004")
    assert "the scan is flipped" in finding.message


def test_scans_that_agree_on_nothing_are_left_alone(examined: list[CaseFacts]) -> None:
    cases = [mirrored(case, AXIS_SETS[index]) for index, case in enumerate(without_labels(examined))]
    assert found(cases) == []


def test_a_liver_on_the_left_is_named_with_one_case_alone(examined: list[CaseFacts]) -> None:
    case = placed(examined[0], {1: -0.2, 2: 0.2})
    (finding,) = found([case])
    assert finding.message == (
        "case_000: expected left and right as in a body, found the liver on the left, the spleen on the right: "
        "the case is flipped left-right"
    )


def test_a_left_kidney_to_the_right_of_the_right_one(examined: list[CaseFacts]) -> None:
    labels = {"background": 0, "kidney_left": 1, "kidney_right": 2}
    assert [f.code for f in found([placed(examined[0], {1: -0.2, 2: 0.2})], labels)] == []
    (finding,) = found([placed(examined[0], {1: 0.2, 2: -0.2})], labels)
    assert "kidney_left to the right of kidney_right" in finding.message


def test_a_flipped_label_map_alone_is_not_called_a_flipped_scan(examined: list[CaseFacts]) -> None:
    own = Finding("error", "flipped-labels", "case_000", "case_000: …", "")
    assert found([replace(placed(examined[0], {1: -0.2}), findings=(own,))]) == []


def test_another_orientation_is_harmless_where_the_body_lies_alike(examined: list[CaseFacts]) -> None:
    cases = [replace(case, axis_codes="LPS" if case.name == "case_002" else "RAS") for case in examined]
    (finding,) = found(cases)
    assert (finding.code, finding.severity, finding.case) == ("orientation", "note", "case_002")
    few = cases[1:4]  # too few to compare
    (finding,) = found([replace(case, coarse=None) for case in few])
    assert finding.severity == "note"  # two of three: no orientation is the usual one
    (finding,) = found([replace(case, coarse=None) for case in cases[1:5]])
    assert (finding.severity, finding.case) == ("warning", "case_002")


def test_a_spacing_unlike_the_others_is_named(examined: list[CaseFacts]) -> None:
    cases = [*examined[:5], replace(examined[5], spacing_mm=(6.0, 7.5, 9.0))]
    (finding,) = found(cases)
    assert (finding.code, finding.case) == ("spacing-outlier", "case_005")
    assert "found 6 x 7.5 x 9 mm" in finding.message


def test_networks_finer_than_the_scans_are_noted(examined: list[CaseFacts]) -> None:
    (finding,) = comparison_findings(examined, LABELS, grid_spacing_mm=(0.5, 0.5, 0.5))
    assert finding.code == "spacing-finer-than-scans"


def test_the_same_scan_twice_is_named_also_where_it_is_flipped(examined: list[CaseFacts]) -> None:
    twin = replace(examined[1], name="case_104")
    flipped = replace(examined[2], name="case_105", voxel_hash="other")
    first, second = found([*examined, twin, flipped])
    assert (first.code, first.case) == ("duplicate", "case_001")
    assert first.message.endswith("found the same voxels in case_104")
    assert second.message == (
        "case_002: expected a scan of its own in every case, found the same voxels, flipped or turned in case_105"
    )


def test_a_label_nobody_has_is_noted(examined: list[CaseFacts]) -> None:
    (finding,) = found(examined, {**LABELS, "cyst": 7})
    assert "found no voxel of cyst" in finding.message
