"""The blind test: answers that agree with the cohort, pairs of a size, and what a judge scores."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from promptlesion.data.dataset import Dataset
from promptlesion.data.provenance import read_provenance
from promptlesion.evaluation.lesions import LesionCrop

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "blind.py"))
    sys.path.remove(str(FOLDER))


def cube(side: int, subject: str) -> LesionCrop:
    mask = np.ones((side, side, side), dtype=bool)
    return LesionCrop(f"{subject}_{side}", subject, "bright", mask.astype(np.float32), mask, (0, 0, 0), (0.5, 0.6, 0.4))


def test_the_answers_agree_with_the_cohort_and_who_knows_them_is_right(
    script: dict[str, Any], tiny_data: Dataset, any_hu: Path, tmp_path: Path
) -> None:
    import promptlesion as pl

    common: dict[str, Any] = {"lesions": any_hu, "device": "cpu", "config": "demo"}
    pl.train("diffusion", tiny_data.root, tmp_path / "run", method="copy-paste", **common)
    pl.synthesize(tiny_data.root, tmp_path / "run", tmp_path / "painted", {"bright": 2}, accept_all=True, **common)
    folders = ["--real", str(tiny_data.root), "--lesions", str(any_hu), "--painted", str(tmp_path / "painted")]
    for out in (tmp_path / "out", tmp_path / "again"):
        result = CliRunner().invoke(script["app"], ["draw", *folders, "--part", "all", "--out", str(out)])
        assert result.exit_code == 0, result.output
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert set(pictures) == {"blind_bright.png", "montage.png"}
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "again").glob("*.png")}

    pairs = json.loads((tmp_path / "out" / "answers.json").read_text(encoding="utf-8"))["pairs"]["bright"]
    painted, real = set(read_provenance(tmp_path / "painted")), {case.name for case in tiny_data.cases}
    other = {"A": "B", "B": "A"}
    assert len(pairs) == 2
    assert all(pair[pair["painted"]]["case"] in painted for pair in pairs)
    assert all(pair[other[pair["painted"]]]["case"] in real for pair in pairs)
    assert not any(name.encode() in picture for name in painted | real for picture in pictures.values())

    right = [pair["painted"] for pair in pairs]
    for judge, judged in (("knows", right), ("errs", [other[letter] for letter in right])):
        (tmp_path / f"{judge}.json").write_text(json.dumps({"bright": judged}), encoding="utf-8")
    arguments = ["score", "--answers", str(tmp_path / "out" / "answers.json")]
    arguments += [part for judge in ("knows", "errs") for part in ("--judged", str(tmp_path / f"{judge}.json"))]
    result = CliRunner().invoke(script["app"], arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "score.json").read_text(encoding="utf-8"))["rows"]
    shares = {(row["judge"], row["lesion_type"]): (row["share"], row["of"]) for row in rows}
    assert shares["knows", "bright"] == shares["knows", "all"] == (1.0, 2)
    assert shares["errs", "all"] == (0.0, 2)
    assert shares["together", "all"] == (0.5, 4)
    assert "| together | all | 2 of 4 | 0.50 [" in (tmp_path / "out" / "score.md").read_text(encoding="utf-8")


def test_pairs_are_of_nearly_one_size_and_of_different_subjects(script: dict[str, Any]) -> None:
    reals = [cube(side, subject) for subject in ("a", "b", "c") for side in (4, 8, 12)]
    painteds = [cube(side, "painted") for side in (4, 4, 4, 8, 8, 8, 12, 12, 12)]
    for seed in range(5):
        matched = script["match_by_size"](reals, painteds, 3, np.random.default_rng(seed))
        assert [one.mask.shape for one, _ in matched] == [other.mask.shape for _, other in matched]
        assert {one.subject for one, _ in matched} == {"a", "b", "c"}
    assert len(script["match_by_size"](reals, painteds[:2], 3, np.random.default_rng(0))) == 2


def test_the_interval_is_wilsons(script: dict[str, Any]) -> None:
    row = script["score_rows"]("judge", {"bright": [True] * 7 + [False] * 3})[0]
    z, n, share = 1.959964, 10, 0.7
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert (row["low"], row["high"]) == pytest.approx(tuple((middle + s * half) / (1 + z**2 / n) for s in (-1, 1)))


@pytest.mark.parametrize(
    ("judged", "message"),
    [({"dark": ["A"]}, "lesion types"), ({"bright": ["A", "B"]}, "1 answers"), ({"bright": ["C"]}, "A or B")],
)
def test_a_judges_file_of_another_form_is_refused(script: dict[str, Any], judged: dict[str, Any], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"judge.json: .*{message}"):
        script["right_answers"]({"bright": ["A"]}, judged, Path("judge.json"))
