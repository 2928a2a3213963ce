"""The table of methods: what is counted, by type and size, over seeds and subjects, and the paired tests."""

from dataclasses import replace

import numpy as np
import pytest

from promptlesion.evaluation.lesion_matching import PredictedLesion, TrueLesion
from promptlesion.evaluation.method_comparison import METRICS, MethodRow, method_rows
from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.segmentation_metrics import LesionScore


def _lesion(diameter_mm: float, dice: float) -> TrueLesion:
    return TrueLesion(diameter_mm, dice > 0.1, dice, dice, 1.0 if dice else None, 100.0 * (1 - dice))


def _score(
    case: str, dice: float | None, *, lesion_type: str = "hard", true: tuple = (), predicted: tuple = ()
) -> LesionScore:
    """A case of one scan a subject; `true` are pairs of diameter and Dice, `predicted` of diameter and is_right."""
    return LesionScore(
        case=case,
        subject=f"subject of {case}",
        lesion_type=lesion_type,
        dice=dice,
        surface_dice=dice,
        hd95_mm=2.0 if dice else None,
        num_truth_voxels=100 * len(true),
        num_predicted_voxels=50 * len(predicted),
        true_lesions=tuple(_lesion(*lesion) for lesion in true),
        predicted_lesions=tuple(PredictedLesion(*lesion) for lesion in predicted),
    )


def _found(rows: tuple[MethodRow, ...], metric: str, **wanted: str) -> MethodRow:
    wanted = {"method": "real", "lesion_type": "hard", "size": "all sizes", "metric": metric} | wanted
    (row,) = [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]
    return row


def _cases(gain: float = 0.0, num_cases: int = 9) -> list[LesionScore]:
    generator = np.random.default_rng(0)
    return [
        _score(f"{index}", float(dice) + gain, true=((2.0 + index, float(dice) + gain),), predicted=((3.0, True),))
        for index, dice in enumerate(generator.uniform(0.3, 0.6, num_cases))
    ]


def test_what_is_counted() -> None:
    scores = [
        _score("a", 0.8, true=((2.0, 0.6), (6.0, 0.8)), predicted=((2.0, True), (6.0, True), (1.0, False))),
        _score("b", 0.0, true=((4.0, 0.0),)),
        _score("c", 0.0, predicted=((1.0, False),)),
        _score("d", None),
    ]
    rows = method_rows({"real": [scores]}, reference="real", seed=0)
    dice = _found(rows, "dice")
    assert (dice.value.value, dice.num_subjects) == (pytest.approx(0.4), 2)  # a and b: the truth has it
    assert _found(rows, "hd95_mm").num_subjects == 1  # a alone
    assert _found(rows, "volume_error_percent").value.value == pytest.approx((25 + 100) / 2)
    assert _found(rows, "sensitivity").value.value == pytest.approx((1 + 0) / 2)
    assert _found(rows, "precision").value.value == pytest.approx((2 / 3 + 0) / 2)  # a and c predicted something
    false = _found(rows, "false_positives_per_scan")
    assert (false.value.value, false.num_subjects) == (pytest.approx(2 / 4), 4)
    assert dice.difference is None and dice.p_value is None and dice.trainings == (pytest.approx(0.4),)


def test_sizes_meet_at_the_median_and_score_lesion_by_lesion() -> None:
    scores = [
        _score("a", 0.7, true=((2.0, 0.2), (6.0, 0.8)), predicted=((2.0, True), (5.0, False))),
        _score("b", 0.5, true=((4.0, 0.4), (1.0, 0.0)), predicted=((4.0, True),)),
    ]
    rows = method_rows({"real": [scores]}, reference="real", seed=0)
    assert list(dict.fromkeys(row.size for row in rows)) == ["all sizes", "< 3.0 mm", ">= 3.0 mm"]
    small, large = ({"size": size} for size in ("< 3.0 mm", ">= 3.0 mm"))
    assert _found(rows, "dice", **small).value.value == pytest.approx((0.2 + 0.0) / 2)
    assert _found(rows, "dice", **large).value.value == pytest.approx((0.8 + 0.4) / 2)
    assert _found(rows, "sensitivity", **small).value.value == pytest.approx(0.5)
    assert _found(rows, "precision", **large).value.value == pytest.approx((0 + 1) / 2)
    assert _found(rows, "false_positives_per_scan", **large).value.value == pytest.approx(0.5)
    assert _found(rows, "hd95_mm", **small).num_subjects == 1


def test_lesions_of_one_size_are_not_divided() -> None:
    rows = method_rows({"real": [[_score("a", 0.5, true=((3.0, 0.5),))]]}, reference="real", seed=0)
    assert {row.size for row in rows} == {"all sizes"}


def test_a_constant_gain_is_certain_and_its_p_value_the_smallest_there_is() -> None:
    rows = method_rows({"real": [_cases()], "mixed": [_cases(0.1)]}, reference="real", seed=0)
    dice = _found(rows, "dice", method="mixed")
    assert dice.difference is not None
    ends = (dice.difference.value, dice.difference.low, dice.difference.high)
    assert ends == pytest.approx((0.1, 0.1, 0.1))
    assert dice.p_value == 2 / 2**9 and dice.num_paired_subjects == 9
    real = _found(rows, "dice")
    assert real.value.low is not None and real.value.low < real.value.high - 0.01  # subjects differ, the gain does not


def test_a_method_against_itself() -> None:
    rows = method_rows({"real": [_cases()], "again": [_cases()]}, reference="real", seed=0)
    for row in rows:
        if row.method == "again":
            assert (row.difference, row.p_value) == (Estimate(value=0.0, low=0.0, high=0.0), 1.0)


def test_seeds_are_averaged_within_subjects_first() -> None:
    """Three seeds are no three subjects: with them alike, everything is as with one."""
    once = method_rows({"real": [_cases()], "mixed": [_cases(0.1)]}, reference="real", seed=0)
    thrice = method_rows({"real": [_cases()] * 3, "mixed": [_cases(0.1)] * 3}, reference="real", seed=0)
    for one, three in zip(once, thrice, strict=True):
        assert three.trainings == one.trainings * 3
        assert three.value.low == pytest.approx(one.value.low) and three.p_value == one.p_value
    rows = method_rows({"real": [_cases(0.0), _cases(0.1), _cases(0.2)]}, reference="real", seed=0)
    assert np.diff(_found(rows, "dice").trainings) == pytest.approx([0.1, 0.1])
    assert _found(rows, "dice").value.value == pytest.approx(np.mean([score.dice for score in _cases(0.1)]))


def test_a_seed_that_one_of_them_lacks_is_no_part_of_their_difference() -> None:
    real = [_cases(0.0), _cases(0.1), _cases(0.3)]
    rows = method_rows({"real": real, "mixed": [_cases(0.02), None, _cases(0.34)]}, reference="real", seed=0)
    mixed = _found(rows, "dice", method="mixed")
    assert mixed.difference is not None and mixed.difference.value == pytest.approx((0.02 + 0.04) / 2)
    assert len(mixed.trainings) == 2
    assert mixed.value.value == pytest.approx(np.mean(mixed.trainings))
    rows = method_rows({"real": [None, *real[1:]], "mixed": [_cases(0.02), None, None]}, reference="real", seed=0)
    assert _found(rows, "dice", method="mixed").difference == Estimate(value=None)


def test_all_types_is_the_mean_over_types() -> None:
    hard = _cases()
    soft = [replace(score, lesion_type="soft", dice=score.dice / 2) for score in hard[:2]]
    rows = method_rows({"real": [hard + soft]}, reference="real", seed=0)
    values = [_found(rows, "dice", lesion_type=name).value.value for name in ("hard", "soft", "all types")]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)
    assert rows[-1].lesion_type == "all types"
    assert {row.size for row in rows if row.lesion_type == "all types"} == {"all sizes"}
    metrics = [row.metric for row in rows if row.lesion_type == "all types"]
    assert metrics == list(METRICS)


def test_a_method_that_never_predicts_has_no_precision_and_no_hd95_but_a_dice() -> None:
    silent = [
        replace(score, dice=0.0, surface_dice=0.0, hd95_mm=None, num_predicted_voxels=0, predicted_lesions=())
        for score in _cases()
    ]
    rows = method_rows({"real": [_cases()], "silent": [silent]}, reference="real", seed=0)
    for metric in ("precision", "hd95_mm"):
        row = _found(rows, metric, method="silent")
        assert (row.num_subjects, row.value, row.difference) == (0, Estimate(value=None), Estimate(value=None))
        assert row.p_value is None
    assert _found(rows, "dice", method="silent").value.value == 0.0
    assert _found(rows, "false_positives_per_scan", method="silent").value.value == 0.0


def test_a_type_nobody_has_still_counts_false_positives() -> None:
    soft = [_score(f"{index}", 0.0, lesion_type="soft", predicted=((2.0, False),)) for index in range(9)]
    rows = method_rows({"real": [_cases() + soft]}, reference="real", seed=0)
    assert {row.metric for row in rows if row.lesion_type == "soft"} == {"precision", "false_positives_per_scan"}
    assert "all types" not in {row.lesion_type for row in rows}


def test_same_seed_same_table() -> None:
    scores = {"real": [_cases(num_cases=20)], "mixed": [_cases(0.05, num_cases=20)[::-1]]}
    assert method_rows(scores, reference="real", seed=3) == method_rows(scores, reference="real", seed=3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="reference 'none': expected one of the methods real"):
        method_rows({"real": [_cases()]}, reference="none", seed=0)
    with pytest.raises(ValueError, match="mixed: expected the scores of at least one training, found none"):
        method_rows({"real": [_cases()], "mixed": []}, reference="real", seed=0)
    with pytest.raises(ValueError, match=r"mixed: expected scores of the same cases .* hard of 8 was scored for only"):
        method_rows({"real": [_cases()], "mixed": [_cases()[:-1]]}, reference="real", seed=0)
