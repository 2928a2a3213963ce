"""Tables say what the results hold, in every form, and the sentences say no more than the intervals do."""

import csv
import io

import pytest
from tests.experiment.made_up import HELPS, TYPES, case_scores, fidelity, results, row

from promptlesion.cli.console import show
from promptlesion.experiment.summary import summary_sentences
from promptlesion.experiment.table import Table, as_csv, as_latex
from promptlesion.experiment.tables import all_tables
from promptlesion.experiment.terminal import experiment_parts


def test_the_dice_table_has_value_interval_difference_and_p() -> None:
    tables = {table.name: table for table in all_tables(results(HELPS))}
    dice = tables["dice"]
    assert dice.columns[2] == "calcified plaque (N = 12)"
    assert dice.columns[-2] == "all types (N = 12)"
    first, second = dice.rows
    assert first[:4] == ("real", "3", "0.500 [0.400, 0.600]", "–")
    assert second[3] == "+0.100 [+0.020, +0.180] (p 0.040)"
    assert {"dice", "trainings", "metrics", "sizes", "table2-time", "times", "sweep"} == set(
        tables
    )  # nothing was painted
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


def test_what_is_painted_is_as_bright_as_the_rows_say() -> None:
    tables = {table.name: table for table in all_tables(results(fidelity=(fidelity(),)))}
    assert [(line[1], *line[4:]) for line in tables["intensity"].rows] == [
        ("autoencoded, promptlesion", "630", "630", "+0", "+0%", "±158", "holds"),
        ("promptlesion", "630", "600", "-30", "-5%", "±158", "holds"),
        ("promptlesion", "55", "95", "+40", "+73%", "±30", "broken"),
    ]
    assert [line[4:] for line in tables["prompt-switch"].rows] == [
        ("calcified plaque", "603 ± 33", "630", "holds", "liver tumor 1.000"),
        ("liver tumor", "75 ± 15", "55", "holds", "calcified plaque 1.000"),
    ]
    assert tables["table3-fid"].rows[0][:4] == (
        "promptlesion",
        "8",
        "EfficientNet-lite0, ImageNet",
        "1.25 [0.90, 1.60]",
    )


def test_how_painted_lesions_look_and_what_was_asked_of_them() -> None:
    tables = {table.name: table for table in all_tables(results(fidelity=(fidelity(),)))}
    (looks,), (asked,) = tables["appearance"].rows, tables["asked"].rows
    assert looks[3:8] == ("edge (HU/mm)", "20/28", "70.0 [60.0, 80.0]", "90.0 [85.0, 95.0]", "+20.0 [+10.0, +30.0]")
    assert looks[8:] == ("1.500", "0.020 [-0.100, 0.200]")
    assert asked[2:] == (
        "calcified plaque",
        "mean hu",
        "28",
        "640.0",
        "600.0",
        "41.0",
        "0.25",
        "0.80 [0.70, 0.90]",
        "–",
    )
    unasked = fidelity().measured.model_copy(update={"asked": (), "appearance": ()})
    silent = results(fidelity=(fidelity().model_copy(update={"measured": unasked}),))
    assert not {"appearance", "asked"} & {table.name for table in all_tables(silent)}


def test_lesions_drawn_where_there_are_none_are_counted() -> None:
    tables = {table.name: table for table in all_tables(results(case_scores=case_scores()))}
    assert tables["false-positives"].rows == (("real", "0 of 1", "–"), ("copy-paste", "1 of 1", "–"))
    assert tables["cases"].rows[2] == ("case_2", "real", "0", "calcified plaque", "–", "–", "–", "0", "0")
    assert len(tables["cases"].rows) == 6


def test_in_a_terminal_no_figure_is_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(*experiment_parts(results(fidelity=(fidelity(),))))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert [printed.count(text) for text in ("copy-paste  ", "+0.100", "-0.150", "all types")] == [3, 1, 1, 1]
    assert [printed.count(text) for text in ("autoencoded", "liver tumor 1.000", "1.25")] == [1, 1, 1]


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
    assert [table.name for table in all_tables(empty)] == ["table2-time", "times"]


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
