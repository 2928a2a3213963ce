"""`benchmarks/same_results.py`: the same twice, and what differs is named."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_results.py"


@pytest.fixture
def same_results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # put back afterwards, as the script sets them itself
    spec = importlib.util.spec_from_file_location("same_results", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_differs_is_named(same_results: ModuleType) -> None:
    before, after = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"}
    assert same_results.differences(before, after) == ["differs: b", "missing: c", "new: d"]
    assert same_results.differences(before, before) == []


def test_time_and_place_of_a_result_do_not_count(same_results: ModuleType, tmp_path: Path) -> None:
    found = []
    for name, seconds, dice in (("first", 1.5, 0.5), ("second", 2.5, 0.5), ("third", 1.5, 0.6)):
        root = tmp_path / name
        root.mkdir()
        told = {"command": name, "folder": str(root), "rows": [{"dice": dice, "num_seconds": seconds}]}
        (root / "results.json").write_text(json.dumps(told), encoding="utf-8")
        (root / "run.json").write_text(name, encoding="utf-8")
        found.append(dict(same_results.hashes(root)))
    assert found[0] == found[1] != found[2]
    assert list(found[2]) == ["results.json"]


@pytest.mark.slow
def test_two_runs_of_everything_are_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    for options in (["--out", first], ["--out", second, "--compare", first]):
        subprocess.run([sys.executable, str(SCRIPT), *map(str, options)], check=True, capture_output=True)
    hashes = json.loads(second.read_text(encoding="utf-8"))
    methods = ["mask-transformer", "one-hot", "none", "difftumor", "med-ddpm", "copy-paste", "intensity"]
    assert {name.split("/")[1] for name in hashes if name.startswith("cohorts/")} == {*methods, "two-workers"}
    for name in ("autoencoder", "segmentation/unet", "segmentation/dynunet", "methods/one-hot", "demo/diffusion"):
        assert f"{name}/checkpoint/weights.safetensors" in hashes
    one, two = (
        {name.removeprefix(f"cohorts/{cohort}/"): sha for name, sha in hashes.items() if f"/{cohort}/" in name}
        for cohort in ("two-workers", "mask-transformer")
    )
    assert {name: two[name] for name in one} == one
    assert "experiment/tables/dice.csv" in hashes
