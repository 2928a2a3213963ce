"""Folders of predictions: their names, and that all are scored on the same cases."""

import shutil
from pathlib import Path

import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.prediction_folders import parse_predictions, score_folders


def test_names_and_seeds(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    plain = f"{tmp_path}/a=b"
    folders = parse_predictions(["real=x", "mixed=y", "mixed=z/w=1", plain])
    assert folders == {
        "real": [Path("x")],
        "mixed": [Path("y"), Path("z/w=1")],
        plain: [Path(plain)],
    }
    for text in ("=x", "real="):
        with pytest.raises(ValueError, match=f"--predictions {text}: expected NAME=FOLDER or FOLDER"):
            parse_predictions([text])
    with pytest.raises(ValueError, match="expected a folder of its own for every seed, found it twice"):
        parse_predictions(["real=x", "real=x"])


def test_folders_are_scored_on_the_same_cases(tiny_data: Dataset, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        for case in tiny_data.cases[:2]:
            shutil.copy(case.label_path, folder / f"{case.name}.nii.gz")
    scores = score_folders(tiny_data, {"perfect": [first, second]}, tolerance_mm=2.0)
    assert [{score.case for score in run} for run in scores["perfect"]] == [
        {case.name for case in tiny_data.cases[:2]}
    ] * 2
    assert {score.dice for run in scores["perfect"] for score in run} <= {1.0, None}
    odd = tiny_data.cases[1].name
    (second / f"{odd}.nii.gz").unlink()
    for several in ([first, second], [second, first]):
        with pytest.raises(ValueError, match=rf"second: expected the same cases as in .*first, but there is no {odd}"):
            score_folders(tiny_data, {"perfect": several}, tolerance_mm=2.0)
    with pytest.raises(ValueError, match="expected label maps of cases of"):
        score_folders(tiny_data, {"none": [tmp_path]}, tolerance_mm=2.0)
