"""Tables say what the results hold, in every form, and the sentences say no more than the intervals do."""

import csv
import io

import pytest

from promptlesion.cli.console import show
from promptlesion.evaluation.method_comparison import MethodRow
from promptlesion.evaluation.results import DatasetSummary, Estimate
from promptlesion.experiment.report import summary_sentences
from promptlesion.experiment.results import Comparison, ExperimentResults, MethodTime
from promptlesion.experiment.tables import Table, all_tables, as_csv, as_latex
from promptlesion.experiment.terminal import experiment_parts

TYPES = ("calcified_plaque", "liver_tumor")


def row(
    method: str,
    lesion_type: str,
    value: float,
    difference: tuple[float, float, float] | None = None,
    spread: float = 0.0,
) -> MethodRow:
    estimate = None if difference is None else Estimate(value=difference[0], low=difference[1], high=difference[2])
    return MethodRow(
        method=method,
        lesion_type=lesion_type,
        size="all sizes",
        metric="dice",
        num_subjects=12,
        value=Estimate(value=value, low=value - 0.1, high=value + 0.1),
        difference=estimate,
        p_value=None if difference is None else 0.04,
        trainings=(value - spread, value, value + spread),
    )


def results(rows: tuple[MethodRow, ...]) -> ExperimentResults:
    """Two methods at one ratio; the second number of subjects is there for the sweep."""
    comparisons = tuple(
        Comparison(
            num_subjects=number,
            num_cases=number,
            num_lesions=dict.fromkeys(TYPES, 3),
            ratio=1.0,
            num_synthetic={"copy-paste": 6.0},
            rows=rows,
        )
        for number in (4, 8)
    )
    return ExperimentResults(
        command="promptlesion experiment",
        created="2026-11-22T00:00:00+00:00",
        seed=0,
        seeds=(0, 1, 2),
        methods=("real", "copy-paste"),
        machine="a machine",
        versions={},
        dataset=DatasetSummary(
            name="data",
            path="data",
            is_phantom=False,
            lesion_types=TYPES,
            spacing_mm=(1.0, 1.0, 1.0),
            window_hu=(-100.0, 200.0),
            num_train_cases=8,
            num_validation_cases=2,
            num_test_cases=12,
            num_train_subjects=8,
            num_validation_subjects=2,
            num_test_subjects=12,
            num_synthetic_cases=0,
        ),
        main_num_subjects=8,
        main_ratio=1.0,
        comparisons=comparisons,
        fidelity=(),
        real_against_real=(),
        times=(
            MethodTime(
                num_subjects=8,
                method="copy-paste",
                autoencoder_seconds=None,
                training_seconds=2.0,
                volumes_per_minute=None,
                sampling="no network",
                patch_voxels=None,
            ),
        ),
        failures={},
        unfinished=(),
        configuration={},
        limits=(),
        num_resamples=100,
    )


HELPS = (
    row("real", "calcified_plaque", 0.5),
    row("copy-paste", "calcified_plaque", 0.6, (0.1, 0.02, 0.18)),
    row("real", "liver_tumor", 0.7),
    row("copy-paste", "liver_tumor", 0.6, (-0.1, -0.15, -0.05)),
    row("real", "all types", 0.6),
    row("copy-paste", "all types", 0.6, (0.0, -0.05, 0.05)),
)


def test_the_dice_table_has_value_interval_difference_and_p() -> None:
    tables = {table.name: table for table in all_tables(results(HELPS))}
    dice = tables["dice"]
    assert dice.columns[2] == "calcified plaque (N = 12)"
    assert dice.columns[-2] == "all types (N = 12)"
    first, second = dice.rows
    assert first[:4] == ("real", "3", "0.500 [0.400, 0.600]", "–")
    assert second[3] == "+0.100 [+0.020, +0.180] (p 0.040)"
    assert {"dice", "trainings", "metrics", "sizes", "table2-time", "sweep"} == set(tables)  # nothing was painted
    assert [line[0] for line in tables["sweep"].rows] == ["4", "4", "8", "8"]


def test_promptlesion_is_held_against_every_other_method_that_paints() -> None:
    """The rows hold the rival less PromptLesion; the table turns them round."""
    types = (*TYPES, "all types")
    rivals = (
        *(row("copy-paste", name, 0.5, (-0.1, -0.18, -0.02)) for name in types),
        *(row("intensity", name, 0.65, (0.05, -0.02, 0.12)) for name in types),
        *(row("promptlesion-transformer", name, 0.6) for name in types),
    )
    rivals += tuple(each.model_copy(update={"metric": "surface_dice"}) for each in rivals if each.method != "intensity")
    found = results(HELPS)
    comparisons = tuple(each.model_copy(update={"rivals": rivals}) for each in found.comparisons)
    found = found.model_copy(update={"comparisons": comparisons})
    tables = {table.name: table for table in all_tables(found)}
    assert summary_sentences(found)[-1] == (
        "promptlesion-transformer, all types, paired: less copy-paste +0.100 [+0.020, +0.180] (p 0.040); "
        "less intensity -0.050 [-0.120, +0.020] (p 0.040)."
    )
    assert tables["rivals"].columns[0] == "promptlesion-transformer less"
    assert [line[:2] for line in tables["rivals"].rows] == [
        ("copy-paste", "+0.100 [+0.020, +0.180] (p 0.040)"),
        ("intensity", "-0.050 [-0.120, +0.020] (p 0.040)"),
    ]
    assert tables["rivals"].columns[-1] == "all types"
    assert tables["rivals-metrics"].columns[:4] == (
        "promptlesion-transformer less",
        "Dice",
        "surface Dice",
        "HD95 (mm)",
    )
    assert [line[:4] for line in tables["rivals-metrics"].rows] == [
        ("copy-paste", *["+0.100 [+0.020, +0.180] (p 0.040)"] * 2, "–"),
        ("intensity", "-0.050 [-0.120, +0.020] (p 0.040)", "–", "–"),
    ]


def test_in_a_terminal_no_figure_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(*experiment_parts(results(HELPS)))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert [printed.count(text) for text in ("copy-paste  ", "+0.100", "-0.150", "all types")] == [3, 1, 1, 1]


def test_the_sentences_say_for_which_type_it_is_clear() -> None:
    (sentence,) = summary_sentences(results(HELPS))
    assert sentence == (
        "copy-paste: mean Dice 0.600, +0.000 against real scans alone (-0.050 to +0.050, p = 0.040): no clear help or "
        "harm; better for calcified plaque; worse for liver tumor."
    )


@pytest.mark.parametrize(
    ("spread", "verdict"),
    [(0.09, "it helped here"), (0.11, "but only 2 of 3 trainings came out above: no clear help or harm")],
)
def test_what_one_training_does_not_show_is_not_clear(spread: float, verdict: str) -> None:
    rows = (row("real", "liver_tumor", 0.5), row("copy-paste", "liver_tumor", 0.6, (0.1, 0.02, 0.18), spread))
    (sentence,) = summary_sentences(results(rows))
    assert verdict in sentence
    (table,) = (table for table in all_tables(results(rows)) if table.name == "trainings")
    assert table.rows[1] == ("copy-paste", f"{0.6 - spread:.3f}, 0.600, {0.6 + spread:.3f}")


def test_what_more_lesions_could_add_is_training_less_held_out_dice() -> None:
    plain = results(HELPS)
    assert "fit" not in {table.name for table in all_tables(plain)}  # an experiment of before has no such scores
    comparisons = tuple(
        each.model_copy(update={"training_dice": {"calcified_plaque": 0.9, "liver_tumor": 0.65}})
        for each in plain.comparisons
    )
    (fit,) = (
        table for table in all_tables(plain.model_copy(update={"comparisons": comparisons})) if table.name == "fit"
    )
    assert fit.rows == (
        ("calcified plaque", "3", "0.900", "0.500", "+0.400"),
        ("liver tumor", "3", "0.650", "0.700", "-0.050"),
    )


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [((0.1, 0.01, 0.2), "it helped here"), ((-0.1, -0.2, -0.01), "it did harm here"), ((0.1, -0.01, 0.2), "no clear")],
)
def test_help_and_harm_are_read_off_the_interval(difference: tuple[float, float, float], verdict: str) -> None:
    rows = (row("real", "liver_tumor", 0.5), row("copy-paste", "liver_tumor", 0.6, difference))
    (sentence,) = summary_sentences(results(rows))
    assert verdict in sentence


def test_an_interval_that_the_test_does_not_support_is_not_clear() -> None:
    unsure = row("copy-paste", "liver_tumor", 0.6, (0.1, 0.01, 0.2)).model_copy(update={"p_value": 0.0625})
    (sentence,) = summary_sentences(results((row("real", "liver_tumor", 0.5), unsure)))
    assert "no clear help or harm" in sentence


def test_without_real_scans_alone_nothing_is_said() -> None:
    empty = results(HELPS).model_copy(update={"comparisons": ()})
    assert summary_sentences(empty) == [
        "Nothing could be compared: there is no segmentation network trained on real scans alone."
    ]
    assert [table.name for table in all_tables(empty)] == ["table2-time"]


TABLE = Table("t", "50 % of A & B_C: < 3 mm", ("a_b", "c"), (("1,5", "36³"), ('"x"', ">= 2 ± 1 – \\")))


def test_csv_is_read_back() -> None:
    assert list(csv.reader(io.StringIO(as_csv(TABLE)))) == [list(TABLE.columns), *map(list, TABLE.rows)]


def test_latex_is_escaped() -> None:
    text = as_latex(TABLE)
    assert r"\caption{50 \% of A \& B\_C: $<$ 3 mm}" in text
    assert r"a\_b & c \\" in text
    assert r"1,5 & 36$^3$ \\" in text
    assert r"$\geq$ 2 $\pm$ 1 -- \textbackslash{} \\" in text
    assert text.count("{") == text.count("}")
