"""Lesions against lesions.toml and the networks' grid."""

from dataclasses import replace

import numpy as np
import pytest
from tests.check.conftest import LABELS

from promptlesion.check.facts import CaseFacts, LesionFacts
from promptlesion.check.finding import Finding
from promptlesion.check.intensity import HU_OF_BIN
from promptlesion.check.lesions import NetworkGrid, lesion_findings, type_facts
from promptlesion.data.spec import DatasetSpec, LesionType

GRID = NetworkGrid((1.0, 1.0, 2.0), 4, 96)


def spec(host: str = "liver", window_hu: tuple[float, float] = (-160.0, 240.0)) -> DatasetSpec:
    lesion = LesionType(name="tumor", label=3, host=(host,), diameter_mm=(5.0, 40.0), hu=(20.0, 100.0))
    return DatasetSpec(window_hu=window_hu, spacing_mm=(1.0, 1.0, 2.0), lesions=(lesion,))


def lesion(**changes: object) -> LesionFacts:
    facts = LesionFacts(3, (10.0, -20.0, 30.0), 900, 18.0, 19.0, 60.0)
    return replace(facts, **changes)  # type: ignore[arg-type]


def found(cases: list[CaseFacts], lesions: list[LesionFacts], **options: object) -> list[Finding]:
    changed = [replace(cases[0], name="case_040", lesions=tuple(lesions)), *cases[1:]]
    return lesion_findings(changed, spec(**options), LABELS, GRID)  # type: ignore[arg-type]


def test_the_grid_of_the_networks() -> None:
    assert GRID.latent_mm == (4.0, 4.0, 8.0)
    assert GRID.latent_edge_mm == pytest.approx(np.cbrt(128))
    assert GRID.largest_extent_mm == 72.0


def test_lesions_as_they_should_be_give_no_findings(examined: list[CaseFacts]) -> None:
    assert found(examined, [lesion()]) == []


def test_a_lesion_under_a_latent_voxel_is_named_with_case_type_place_and_size(examined: list[CaseFacts]) -> None:
    (finding,) = found(examined, [lesion(), lesion(diameter_mm=3.1), lesion(diameter_mm=1.2, num_voxels=1)])
    assert (finding.code, finding.severity, finding.case) == ("lesion-under-latent-voxel", "warning", "case_040")
    assert finding.message == (
        "case_040: expected tumor larger than a latent voxel of 4 x 4 x 8 mm, found 2 of 3 smaller: "
        "3.1 mm at (10, -20, 30) mm, 1.2 mm at (10, -20, 30) mm (1 voxel, a crumb?)"
    )


def test_a_type_of_which_most_lesions_are_too_small_would_spoil_the_run(examined: list[CaseFacts]) -> None:
    findings = lesion_findings(
        [replace(case, lesions=(lesion(diameter_mm=3.0),)) for case in examined], spec(), LABELS, GRID
    )
    assert findings[-1].code == "type-under-latent-voxel"
    assert findings[-1].severity == "error"


def test_a_lesion_longer_than_the_patch_and_one_of_another_brightness(examined: list[CaseFacts]) -> None:
    first, second = found(examined, [lesion(extent_mm=90.0), lesion(mean_hu=-400.0)])
    assert (first.code, second.code) == ("lesion-over-patch", "lesion-hu")
    assert "found 90 mm at (10, -20, 30) mm" in first.message
    assert "expected tumor of 20 to 100 HU on average, found 1 of 2 outside: -400 HU" in second.message


def test_the_brightness_of_what_is_no_hu_is_not_judged(examined: list[CaseFacts]) -> None:
    cases = [replace(examined[0], hu=None), *examined[1:]]
    assert found(cases, [lesion(mean_hu=0.3)]) == []


def test_no_host_anywhere_would_spoil_the_run(examined: list[CaseFacts]) -> None:
    without = [replace(case, labels={k: v for k, v in case.labels.items() if k != 2}) for case in examined]
    (finding,) = found(without, [lesion()], host="spleen")
    assert (finding.code, finding.severity) == ("no-host", "error")
    (finding,) = found(examined, [], host="spleen")[:1] or [None]  # still five other lesions
    assert finding is None or finding.code != "no-host"


def test_a_window_that_cuts_lesions_off(examined: list[CaseFacts]) -> None:
    (finding,) = found(examined, [lesion()], window_hu=(-160.0, 62.0))
    assert finding.code == "window"
    facts = type_facts(examined, spec(window_hu=(-160.0, 62.0)), LABELS, GRID)[0]
    assert 0.2 < facts.share_outside_window < 0.7


def test_a_type_without_lesions(examined: list[CaseFacts]) -> None:
    findings = lesion_findings([replace(case, lesions=()) for case in examined], spec(), LABELS, GRID)
    assert [finding.code for finding in findings] == ["no-lesions"]


def test_facts_of_a_type_are_those_of_its_cases(examined: list[CaseFacts]) -> None:
    (facts,) = type_facts(examined, spec(), LABELS, GRID)
    assert (facts.num_lesions, facts.num_cases, facts.num_host_cases) == (6, 6, 6)
    assert facts.host_ml == pytest.approx(np.median([case.labels[1].volume_ml for case in examined]))
    own = [case.labels[3] for case in examined]
    assert facts.hu_counts.sum() == sum(one.num_voxels for one in own)
    assert facts.hu_counts @ HU_OF_BIN == pytest.approx(sum(one.num_voxels * one.mean_hu for one in own))
    assert sum(one.hu_counts.nbytes for one in own) < 6 * 8 * 400  # a thousand cases with a hundred labels fit
