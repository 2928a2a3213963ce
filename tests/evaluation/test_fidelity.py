"""The verb `evaluate fidelity` and what it puts together."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.cli import main
from promptlesion.data.dataset import Dataset, open_dataset, read_case, write_case
from promptlesion.evaluation.fidelity import part_cases, plaque_types, training_cases

SPLIT = {"validation_fraction": 0.15, "test_fraction": 0.3, "seed": 0}


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Call `promptlesion evaluate fidelity` as a shell would; exit code, and what it said."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["promptlesion", "evaluate", "fidelity", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err

    return call


def test_everything_is_measured_and_a_planted_copy_is_named(
    evaluate: Callable[..., tuple[int, str]], datasets: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    """The second synthetic case gets the first real case's lesion, moved by a few voxels."""
    real, synthetic = datasets
    planted = tmp_path / "planted"
    shutil.copytree(synthetic.root, planted)
    dataset = open_dataset(planted)
    image, labels = read_case(real, real.case("case_0"))
    voxels = np.argwhere(labels.array == 3)
    moved = tuple((voxels + np.array([7, 3, -1])).T)
    host, host_labels = read_case(dataset, dataset.case("synthetic_1"))
    old, old_labels = read_case(real, real.case("case_1"))
    host.array[:], host_labels.array[:] = old.array, old_labels.array
    host.array[moved], host_labels.array[moved] = image.array[tuple(voxels.T)], 3
    write_case(planted, "synthetic_1", host, host_labels)

    code, said = evaluate(
        "--real", real.root, "--synthetic", planted, "--training", real.root, "--device", "cpu",
        "--out", tmp_path / "fidelity.json", "--figure", tmp_path / "figure.png",
    )  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "fidelity.json").read_text())
    assert [record["name"] for record in found["extractors"]] == ["EfficientNet-lite0, ImageNet"]
    assert len(found["extractors"][0]["weights_sha256"]) == 64
    assert [row["lesion_type"] for row in found["fidelity"]] == ["hard_plaque"]
    assert {row["measure"] for row in found["distributions"]} >= {"mean_hu", "texture_hu", "diameter_mm"}
    copies = [row for row in found["memorisation"]["synthetic"] if row["is_copy"]]
    assert [(row["case"], row["nearest_case"]) for row in copies] == [("synthetic_1", "case_0")]
    assert "synthetic_1: hard_plaque at voxel" in said and "is a copy of case_0's" in said
    assert (tmp_path / "figure.png").is_file() and (tmp_path / "figure-profiles.png").is_file()
    (looks,) = found["appearance"]
    assert (looks["lesion_type"], looks["num_real"], looks["num_synthetic"]) == ("hard_plaque", 1, 3)
    assert (found["part"], found["asked"]) == ("test", [])
    assert "Looks of hard plaque, 1 real and 3 synthetic" in said and "low frequency (HU)" in said


def test_what_was_asked_is_in_the_table(
    evaluate: Callable[..., tuple[int, str]], datasets: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    real, synthetic = datasets
    asking = tmp_path / "asking"
    shutil.copytree(synthetic.root, asking)
    lines = [json.loads(line) for line in (asking / "provenance.jsonl").read_text().splitlines()]
    for index, line in enumerate(lines):
        line["lesions"] = [
            {"type": "hard_plaque", "is_accepted": True, "asked": {"mean_hu": 600.0 + index}, "mean_hu": 603.0 + index}
        ]
    (asking / "provenance.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "fidelity.json"
    code, said = evaluate("--real", real.root, "--synthetic", asking, "--part", "all", "--device", "cpu", "--out", out)
    assert code == 0, said
    found = json.loads(out.read_text())
    (row,) = found["asked"]
    assert (row["attribute"], row["num_lesions"], row["share_close"]["value"]) == ("mean_hu", 3, 1.0)
    assert row["slope"]["value"] == pytest.approx(1) and row["absolute_difference"]["value"] == pytest.approx(3)
    assert found["part"] == "all" and found["fidelity"][0]["num_real"] == 3
    assert "Asked of hard plaque, and painted" in said


def test_parts_of_a_dataset(datasets: tuple[Dataset, Dataset], caplog: pytest.LogCaptureFixture) -> None:
    real, _ = datasets
    everything = {case.name for case in real.cases}
    parts = [part_cases(real, part, **SPLIT) for part in ("train", "val", "test")]
    assert [part for part, _ in parts] == ["train", "val", "test"]
    assert [len(cases) for _, cases in parts] == [1, 1, 1] and set().union(*(cases for _, cases in parts)) == everything
    assert part_cases(real, "all", **SPLIT) == ("all", everything)
    assert not caplog.records
    assert part_cases(real, "test", **{**SPLIT, "test_fraction": 0.0}) == ("all", everything)
    assert "its split has no test part; all lesions are compared" in caplog.text
    assert part_cases(real.select(["case_0", "case_1"]), "test", **SPLIT) == ("all", {"case_0", "case_1"})
    assert "fewer than three subjects" in caplog.text
    with pytest.raises(ValueError, match="part: expected train, val, test or all; found 'some'"):
        part_cases(real, "some", **SPLIT)


def test_training_lesions_are_those_of_the_split(datasets: tuple[Dataset, Dataset]) -> None:
    real, _ = datasets
    assert len(training_cases(real, real, **SPLIT)) == 1
    two = real.select(["case_0", "case_1"])
    assert training_cases(two, real, **SPLIT) == {"case_0", "case_1"}


def test_plaque_lies_against_a_lumen(datasets: tuple[Dataset, Dataset]) -> None:
    lesions = datasets[0].spec.lesions
    crescent = lesions[0].model_copy(update={"shape": "crescent", "lumen": ("lumen",)})
    assert plaque_types((crescent, lesions[1])) == ("hard_plaque",)


def test_weights_without_their_network_are_refused(
    evaluate: Callable[..., tuple[int, str]], datasets: tuple[Dataset, Dataset]
) -> None:
    sides = ("--real", datasets[0].root, "--synthetic", datasets[1].root)
    code, said = evaluate(*sides, "--set", "evaluation.medicalnet_weights=resnet_50.pth")
    assert code == 2 and "expected with medicalnet among the extractors" in said
    code, said = evaluate(*sides, "--set", 'evaluation.extractors=["medicalnet"]')
    assert code == 2 and "medicalnet_weights: expected the path of MedicalNet" in said
