"""An experiment on a tiny dataset: everything is written, a failure is named and does not stop the rest."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import Split, write_splits
from promptlesion.experiment.cells import Design, Question, design_of, plan_cells
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.run import run_experiment
from promptlesion.training.run import RunError

FILES = ["results.json", "report.html", "tables/dice.csv", "tables/dice.tex", "tables/table2-time.csv"]
FILES += ["tables/table3-fid.csv", "tables/table3-kid.tex", "tables/memorisation.csv", "figures/dice.png"]
FILES += ["figures/figure1.png", "figures/figure2.png"]


@pytest.fixture
def design(tiny_experiment: Experiment) -> Design:
    return design_of(Question(methods="real,copy-paste", seeds=1), num_subjects=2, first_seed=0)


def written_at(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("scores.json")}


def test_an_experiment_fails_in_parts_goes_on_and_is_not_done_twice(
    tiny_experiment: Experiment, design: Design, tiny_data: Dataset
) -> None:
    out = tiny_experiment.out
    command = "promptlesion experiment"
    results, failures = run_experiment(tiny_experiment, design, command=command, is_report_only=True)
    assert results.unfinished == tuple(cell.name for cell in plan_cells(design))
    assert not results.comparisons and not failures
    assert not (out / "2-subjects").exists()  # nothing was begun
    # a file where the cohort's folder should be: that piece cannot be done, nor what needs it
    blocked = out / "2-subjects" / "synthetic"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way", encoding="utf-8")
    results, failures = run_experiment(tiny_experiment, design, command=command, num_workers=2)
    assert list(failures) == ["2-subjects/synthetic/copy-paste/ratio-1/seed-0"]
    assert "in the way" not in failures.popitem()[1]
    assert {row.method for each in results.comparisons for row in each.rows} == {"real"}
    assert "What failed" in (out / "report.html").read_text(encoding="utf-8")
    real = written_at(out)
    assert len(real) == 1
    reported, _ = run_experiment(tiny_experiment, design, command=command, is_report_only=True)
    assert reported.comparisons == results.comparisons
    assert (reported.failures, reported.unfinished) == (results.failures, results.unfinished)
    assert "pieces of work are not done yet" in (out / "report.html").read_text(encoding="utf-8")

    blocked.unlink()
    results, failures = run_experiment(tiny_experiment, design, command=command, num_workers=2)
    assert not failures and not results.unfinished
    assert all(cell.is_done(out) for cell in plan_cells(design))
    done = written_at(out)
    assert len(done) == 2
    assert real.items() <= done.items()  # the first network was not trained again
    assert not list((out / "2-subjects" / "segmentation").rglob("cache"))  # a cohort's prepared scans do not stay
    for name in FILES:
        assert (out / name).stat().st_size > 0, name
    again = ExperimentResults.model_validate_json((out / "results.json").read_bytes())
    assert again == results

    run_experiment(tiny_experiment, design, command=command)
    assert written_at(out) == done

    _check_dice(out, results)
    _check_training_dice(out, results)
    other = replace(tiny_experiment, seed=1)
    with pytest.raises(RunError, match="expected a run with the asked-for settings; found one with other"):
        run_experiment(other, design, command=command)


def test_a_method_trained_on_a_subject_that_is_held_out_now_is_refused(
    tiny_experiment: Experiment, design: Design, tiny_data: Dataset, tmp_path: Path
) -> None:
    (cell,) = (cell for cell in plan_cells(design) if cell.kind == "method")
    do(cell, tiny_experiment)
    trained = tuple(case.name for case in tiny_experiment.prepared.train)
    left = [case.name for case in tiny_data.cases if case.name not in trained]
    shutil.copytree(tiny_data.root, tmp_path / "data")
    write_splits(tmp_path / "data", Split(train=(trained[0], left[0]), validation=(left[1],), test=trained[1:]))
    with pytest.raises(DatasetError, match=rf"copy-paste: expected a model trained on other .*'{trained[1]}' \(test"):
        run_experiment(replace(tiny_experiment, data=tmp_path / "data"), design, command="promptlesion experiment")


def _check_training_dice(out: Path, results: ExperimentResults) -> None:
    """Real scans alone are also scored on the two scans they train on, and on no other."""
    (comparison,) = results.comparisons
    path = out / "2-subjects" / "segmentation" / "real" / "seed-0"
    scores = json.loads((path / "scores.json").read_text(encoding="utf-8"))
    trained_on, held_out = ({score["case"] for score in scores[key]} for key in ("training_scores", "scores"))
    card = json.loads((path / "checkpoint" / "card.json").read_text(encoding="utf-8"))
    assert trained_on == set(card["training_cases"])
    assert not trained_on & held_out
    for name, dice in comparison.training_dice.items():
        counted = [score["dice"] for score in scores["training_scores"] if score["lesion_type"] == name]
        assert len(counted) == 2
        assert dice == pytest.approx(sum(counted) / 2, abs=1e-9)
    assert set(comparison.training_dice) == {"bright", "dark"}


def _check_dice(out: Path, results: ExperimentResults) -> None:
    """The table's Dice is the mean of the held-out cases' own, as the scores' files have it."""
    (comparison,) = results.comparisons
    assert comparison.num_subjects == 2
    assert comparison.num_lesions == {"bright": 2, "dark": 2}
    for method in ("real", "copy-paste/ratio-1"):
        path = out / "2-subjects" / "segmentation" / method / "seed-0" / "scores.json"
        scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
        for score in scores:
            (row,) = (
                row
                for row in comparison.rows
                if (row.method, row.lesion_type, row.metric) == (method.split("/")[0], score["lesion_type"], "dice")
                and row.size == "all sizes"
            )
            assert row.value.value == pytest.approx(score["dice"], abs=1e-9)  # one held-out subject, one seed
    with (out / "tables" / "dice.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["method"] for line in table] == ["real", "copy-paste"]
