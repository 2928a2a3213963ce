"""Every command of `benchmarks/generator.py`, on a tiny trained model."""

import json
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from promptlesion.data.dataset import Dataset
from promptlesion.data.splits import Split, write_splits
from promptlesion.evaluation.results import Estimate

FOLDER = Path(__file__).parents[2] / "benchmarks"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "generator.py"))
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def data(tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset with the split the tiny model was trained in."""
    root = tmp_path_factory.mktemp("generator") / "data"
    shutil.copytree(tiny_data.root, root)
    names = [case.name for case in tiny_data.cases]
    write_splits(root, Split(train=tuple(names[:2]), validation=(names[2],), test=(names[3],)))
    return root


@pytest.fixture(scope="module")
def run(script: dict[str, Any], data: Path, tiny_diffusion_run: Path) -> Run:
    def call(command: str, *arguments: str, model: Path = tiny_diffusion_run, root: Path = data) -> str:
        shared = ["--data", str(root), "--cache", str(data.parent / "cache"), "--model", f"tiny={model}"]
        sampling = ["--preset", "demo", "--set", "synthesis.num_steps=2", "--set", "synthesis.guidance_scale=1.5"]
        sampling += ["--device", "cpu"]
        asked = [command, *shared, *sampling, "--out", str(data.parent / "out"), *arguments]
        result = CliRunner().invoke(script["app"], asked, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return (data.parent / "out" / f"{command}.md").read_text(encoding="utf-8")

    return call


def entries(data: Path, command: str) -> Any:
    return json.loads((data.parent / "out" / f"{command}.json").read_text(encoding="utf-8"))["rows"]


def test_bias_compares_three_ways_of_painting_with_the_real_lesions(run: Run, data: Path) -> None:
    table = run("bias", "--count", "2")
    rows = entries(data, "bias")["tiny"]
    assert {row["compared"] for row in rows} == {"autoencoded", "repainted", "placed"}
    assert len(rows) == 6
    for row in rows:
        assert row["num_compared"] == (2 if row["compared"] == "placed" else 1)
        assert row["bias"]["value"] == pytest.approx(row["compared_mean_hu"] - row["real_mean_hu"])
        assert {"seed", "command", "machine"} <= set(row)
    assert "| tiny |" in table
    assert "Seed 0. Machine:" in table
    assert (data.parent / "out" / "bias.png").is_file()


def test_a_part_that_is_there_is_not_painted_again(run: Run, data: Path) -> None:
    run("bias", "--count", "2")
    parts = sorted((data.parent / "out" / "parts").glob("bias-*.json"))
    before = [part.stat().st_mtime_ns for part in parts]
    run("bias", "--count", "2")
    assert [part.stat().st_mtime_ns for part in parts] == before
    run("bias", "--count", "1")
    changed = [part.name for part, time in zip(parts, before, strict=True) if part.stat().st_mtime_ns != time]
    assert changed == ["bias-tiny-placed.json"]


def test_ablation_has_a_column_for_every_setting_that_differs(run: Run, tiny_diffusion_run: Path) -> None:
    table = run("ablation", "--count", "1", "--model", f"again={tiny_diffusion_run}", "--caption", "Two of a kind")
    assert table.startswith("# Two of a kind")
    assert "| model | bright | dark |" in table
    assert "| again |" in table


def test_samplers_are_timed_and_compared(run: Run, data: Path) -> None:
    run("samplers", "--count", "1", "--sampler", "ancestral", "--sampler", "dpm-solver++", "--steps", "2")
    rows = entries(data, "samplers")["tiny"]
    assert [(row["sampler"], row["num_steps"]) for row in rows] == [("ancestral", 2), ("dpm-solver++", 2)]
    assert all(row["num_lesions"] == 2 and row["seconds_per_lesion"] > 0 for row in rows)
    assert all(row["kid"]["low"] <= row["kid"]["value"] <= row["kid"]["high"] for row in rows)


def test_prompts_are_told_by_a_classifier_of_real_lesions(run: Run, data: Path) -> None:
    table = run("prompts", "--count", "1", "--guidance", "3")
    rows = entries(data, "prompts")
    assert [row["guidance"] for row in rows] == [1, 3]
    for row in rows:
        assert row["num_masks"] == 2
        assert sum(map(sum, row["confusion"])) == 4
        right = sum(row["confusion"][index][index] for index in range(2))
        assert row["accuracy"]["all"]["value"] == pytest.approx(right / 4)
    assert "real lesions, held out" in table


def test_surroundings_beyond_a_blended_edge_are_untouched(run: Run, data: Path) -> None:
    run("surroundings", "--count", "1", "--set", "synthesis.edge=margin")  # else the edge is kept anyway
    rows = entries(data, "surroundings")
    assert len(rows) == 8
    for row in rows:
        assert (row["beyond_hu"]["value"] == 0) == (row["blending"] == "on")


def test_a_model_that_was_trained_on_held_out_subjects_is_refused(run: Run, data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    content = json.loads((root / "splits_final.json").read_text())
    content[0]["test"], content[0]["train"] = content[0]["train"][:1], content[0]["train"][1:] + content[0]["test"]
    (root / "splits_final.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected no held-out subject in its training; found tiny_0"):
        run("bias", root=root)


def test_the_default_sampler_is_the_fastest_that_is_not_worse(script: dict[str, Any]) -> None:
    from measure.samplers import fastest_within

    found = {
        ("ancestral", 400): {"kid": {"value": 1.0}, "seconds_per_lesion": 40.0},
        ("ddim", 50): {"kid": {"value": 1.9}, "seconds_per_lesion": 5.0},
        ("ddim", 20): {"kid": {"value": 0.1}, "seconds_per_lesion": 2.0},
        ("ddim", 10): {"kid": {"value": 2.1}, "seconds_per_lesion": 1.0},
    }
    assert fastest_within(found, Estimate(value=1.0, low=0.5, high=2.0)) == ("ddim", 20)
    assert fastest_within(found, Estimate(value=0.0, low=-1.0, high=0.0)) is None
    assert fastest_within(found, None) is None
