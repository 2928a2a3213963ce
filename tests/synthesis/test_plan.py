"""What is asked for is planned exactly, spread as the training lesions are, into scans that may be painted."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.synthesis.conftest import numbers_alone

from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.splits import Split, write_splits
from promptlesion.synthesis.plan import (
    PlannedCase,
    group_cases,
    mean_lesions_per_case,
    parse_counts,
    plan_cohort,
    source_scans,
)
from promptlesion.synthesis.synthesizer import Synthesizer

TRAINING = numbers_alone(bright=(3, 0, 1, 2), dark=(0, 1, 1, 2))
SPLIT_OPTIONS = {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 0}


def plan(
    scans: Dataset,
    counts: dict[str, int],
    *,
    statistics: LesionStatistics = TRAINING,
    cap: int = 10,
    extent_mm: float = 30.0,
    seed: int = 0,
) -> list[PlannedCase]:
    return plan_cohort(scans, counts, statistics=statistics, lesions_per_case=cap, max_extent_mm=extent_mm, seed=seed)


def totals(planned: list[PlannedCase]) -> tuple[int, int]:
    types = [kind for case in planned for kind in case.types]
    return types.count(0), types.count(1)


class TestPlan:
    @pytest.mark.parametrize(
        "counts", [{"bright": 7, "dark": 4}, {"bright": 1}, {"dark": 50}, {"bright": 3, "dark": 0}]
    )
    @pytest.mark.parametrize("cap", [1, 2, 10])
    def test_totals_are_exact_and_the_cap_is_kept(self, scans: Dataset, counts: dict[str, int], cap: int) -> None:
        planned = plan(scans, counts, cap=cap)
        assert totals(planned) == (counts.get("bright", 0), counts.get("dark", 0))
        assert 1 <= min(len(case.types) for case in planned) <= max(len(case.types) for case in planned) <= cap
        assert all(list(case.types) == sorted(case.types) for case in planned)
        assert [(case.name, case.index) for case in planned] == [(f"synthetic_{k:04d}", k) for k in range(len(planned))]

    def test_cases_have_the_lesions_of_training_cases_types_together(self, scans: Dataset) -> None:
        planned = plan(scans, {"bright": 3000, "dark": 2000})
        drawn = [(case.types.count(0), case.types.count(1)) for case in planned[:1500]]
        found, counts = np.unique(drawn, axis=0, return_counts=True)
        assert sorted(map(tuple, found.tolist())) == [(0, 1), (1, 1), (2, 2), (3, 0)]
        assert np.abs(counts / len(drawn) - 0.25).max() < 0.05

    def test_the_seed_decides(self, scans: Dataset) -> None:
        counts = {"bright": 20, "dark": 20}
        assert plan(scans, counts, seed=1) == plan(scans, counts, seed=1) != plan(scans, counts, seed=2)

    @pytest.mark.parametrize(
        "statistics",
        [LesionStatistics(types={}), numbers_alone(bright=(2, 3), dark=(0, 0)), numbers_alone(bright=(2,))],
    )
    def test_a_type_that_no_training_case_has_comes_one_to_a_case(
        self, scans: Dataset, statistics: LesionStatistics
    ) -> None:
        planned = plan(scans, {"bright": 5, "dark": 3}, statistics=statistics)
        assert totals(planned) == (5, 3)
        assert [case.types for case in planned if 1 in case.types] == [(1,)] * 3

    def test_the_mean_number_is_that_of_cases_with_lesions(self) -> None:
        assert mean_lesions_per_case(["bright", "dark"], TRAINING, lesions_per_case=10) == (3 + 1 + 2 + 4) / 4
        assert mean_lesions_per_case(["bright", "dark"], TRAINING, lesions_per_case=2) == (2 + 1 + 2 + 2) / 4
        assert mean_lesions_per_case(["bright"], numbers_alone(bright=(0, 2)), lesions_per_case=3) == 2

    def test_an_unknown_type_is_named(self, scans: Dataset) -> None:
        with pytest.raises(ValueError, match=r"--count grey=2: expected one of the lesion types bright, dark; found"):
            plan(scans, {"grey": 2})

    @pytest.mark.parametrize("counts", [{}, {"bright": 0, "dark": 0}])
    def test_nothing_to_paint_is_refused(self, scans: Dataset, counts: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="expected at least one lesion of bright, dark; found none"):
            plan(scans, counts)

    def test_a_type_that_never_fits_into_the_models_patch_is_refused(self, scans: Dataset) -> None:
        with pytest.raises(ValueError, match=r"bright: .* up to 3\.5 mm along an axis; found 4 mm as the smallest"):
            plan(scans, {"bright": 2}, extent_mm=3.5)
        assert plan(scans, {"bright": 2}, extent_mm=4.0)


def test_counts_are_read() -> None:
    assert parse_counts(["calcified_plaque=20", "non_calcified_plaque=0"]) == {
        "calcified_plaque": 20,
        "non_calcified_plaque": 0,
    }


@pytest.mark.parametrize("texts", [["plaque"], ["plaque="], ["plaque=-1"], ["plaque=1.5"], ["a=1", "a=2"], ["a=²"]])
def test_other_counts_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"--count {texts[-1]}: expected TYPE=N, every type once"):
        parse_counts(texts)


class TestSources:
    def test_scans_are_those_of_training_subjects(
        self, noise_painter: Callable[..., Synthesizer], tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        kept = source_scans(tiny_data, noise_painter(tiny_data.spec), **SPLIT_OPTIONS)
        assert len(kept.cases) == 2  # of four, one validates and one tests

    def test_the_datasets_own_split_counts(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, tiny_spec: DatasetSpec
    ) -> None:
        split = Split(train=("ras", "lps"), validation=("permuted",), test=("oblique", "oblique_permuted"))
        write_splits(scans.root, split)
        try:
            kept = source_scans(scans, noise_painter(tiny_spec), **SPLIT_OPTIONS)
        finally:
            (scans.root / "splits_final.json").unlink()
        assert {case.name for case in kept.cases} == {"ras", "lps"}

    def test_of_a_dataset_too_small_to_split_all_scans_are_used(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        two = scans.select(["ras", "lps"])
        assert source_scans(two, noise_painter(scans.spec), **SPLIT_OPTIONS) == two
        assert "2 subjects are too few to hold any out; all scans are used" in caplog.text

    def test_a_model_of_other_lesion_types_is_refused(
        self, noise_painter: Callable[..., Synthesizer], scans: Dataset, tiny_spec: DatasetSpec
    ) -> None:
        other = tiny_spec.model_copy(update={"lesions": tiny_spec.lesions[::-1], "spacing_mm": (1.0, 1.0, 1.0)})
        differing = (
            r"spacing_mm \(\[1.0, 1.0, 1.5\] instead of \[1.0, 1.0, 1.0\]\); "
            r"lesion_types \(\['bright', 'dark'\] instead of \['dark', 'bright'\]\)"
        )
        with pytest.raises(ValueError, match=f"the one the model was trained on; found one with other {differing}"):
            source_scans(scans, noise_painter(other), **SPLIT_OPTIONS)


class TestGroups:
    @staticmethod
    def of_lesions(numbers: list[int]) -> list[list[int]]:
        planned = [PlannedCase(f"case_{index}", index, (0,) * number) for index, number in enumerate(numbers)]
        groups = group_cases(planned)
        assert [case for group in groups for case in group] == planned
        return [[len(case.types) for case in group] for group in groups]

    def test_they_are_of_cases_that_follow_each_other_and_not_too_many_scans_at_once(self) -> None:
        assert self.of_lesions([1, 2, 1, 3, 1, 1]) == [[1, 2, 1, 3], [1, 1]]
        assert self.of_lesions([9, 9]) == [[9, 9]]
        assert self.of_lesions([1] * 10) == [[1] * 4, [1] * 4, [1] * 2]
        assert self.of_lesions([]) == []
