"""An experiment's pieces from outside: the plan as JSON, and one piece at a time."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import promptlesion as pl
from promptlesion.cli import main
from promptlesion.config import as_toml
from promptlesion.experiment.cells import SCORES_FILE
from promptlesion.experiment.experiment import Experiment
from promptlesion.training.atomic import write_json

Answer = tuple[int, str, str]
QUESTION = pl.Question(methods="real,copy-paste", seeds=1)


@pytest.fixture
def verb(
    tiny_experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    """Call `experiment` as a shell would; exit code, standard output, standard error."""
    (tmp_path / "tiny.toml").write_text(as_toml(tiny_experiment.config), encoding="utf-8")
    given = ["--data", tiny_experiment.data, "--lesions", tiny_experiment.lesions, "--out", tiny_experiment.out]
    given += ["--config", tmp_path / "tiny.toml", "--device", "cpu", "--methods", QUESTION.methods, "--seeds", 1]

    def call(*options: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["promptlesion", "experiment", *map(str, [*given, *options])])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


def test_the_plan_is_json_and_nothing_else(verb: Callable[..., Answer], tiny_experiment: Experiment) -> None:
    write_json(tiny_experiment.out / "2-subjects" / "segmentation" / "real" / "seed-0" / SCORES_FILE, {})
    code, said, _ = verb("--plan")
    cells = {cell["name"]: cell for cell in json.loads(said)}
    assert code == 0
    cohort = cells["2-subjects/synthetic/copy-paste/ratio-1/seed-0"]
    assert cohort["needs"] == ["2-subjects/copy-paste"]
    assert (cohort["kind"], cohort["method"], cohort["num_subjects"]) == ("cohort", "copy-paste", 2)
    assert (cohort["ratio"], cohort["seed"], cohort["is_done"], cohort["wants_gpu"]) == (1.0, 0, False, False)
    assert cohort["estimated_seconds"] > 0 and cohort["estimated_bytes"] is None
    trained = cells["2-subjects/segmentation/copy-paste/ratio-1/seed-0"]
    assert trained["needs"] == [cohort["name"]] and trained["wants_gpu"]
    assert trained["estimated_bytes"] > 2**20
    assert all(set(cell["needs"]) <= set(list(cells)[:place]) for place, cell in enumerate(cells.values()))
    real = cells["2-subjects/segmentation/real/seed-0"]
    assert real["is_done"] and real["estimated_seconds"] is None
    assert not (tiny_experiment.out / "2-subjects" / "copy-paste").exists()


def test_one_piece_is_done_and_nothing_else(verb: Callable[..., Answer], tiny_experiment: Experiment) -> None:
    out, cohort = tiny_experiment.out, "2-subjects/synthetic/copy-paste/ratio-1/seed-0"
    code, _, said = verb("--cell", cohort)
    assert code == 2
    assert f"--cell {cohort}: expected what it needs to be done; not done: 2-subjects/copy-paste" in said
    code, _, said = verb("--cell", "2-subject/copy-past")
    assert code == 2
    assert "--cell: expected a name that --plan lists, such as 2-subjects/copy-paste, " in said
    assert not (out / "2-subjects").exists()
    for told in ("2-subjects/copy-paste is done.", "2-subjects/copy-paste was done before; there is nothing to do."):
        code, said, _ = verb("--cell", "2-subjects/copy-paste")
        assert (code, said.strip()) == (0, told)
    assert [path.name for path in (out / "2-subjects").iterdir()] == ["copy-paste"]


def test_what_failed_elsewhere_is_named_until_it_is_done(tiny_experiment: Experiment) -> None:
    data, out, method = tiny_experiment.data, tiny_experiment.out, "2-subjects/copy-paste"
    given = {"lesions": tiny_experiment.lesions, "device": "cpu", "config": tiny_experiment.config}
    out.mkdir()
    (out / "2-subjects").write_text("in the way", encoding="utf-8")
    with pytest.raises(OSError, match="2-subjects"):
        pl.do_cell(method, data, out, QUESTION, **given)
    results = pl.experiment(data, out, QUESTION, report_only=True, **given)
    assert list(results.failures) == [method] and method not in results.unfinished
    (out / "2-subjects").unlink()
    assert pl.do_cell(method, data, out, QUESTION, **given)
    assert not pl.do_cell(method, data, out, QUESTION, **given)
    assert not pl.experiment(data, out, QUESTION, report_only=True, **given).failures
