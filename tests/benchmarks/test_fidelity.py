"""Cohorts side by side: the command."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from promptlesion.data.dataset import Dataset

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "fidelity.py"))
    sys.path.remove(str(FOLDER))


def test_the_command_writes_a_line_for_every_measure(
    script: dict[str, Any], tiny_data: Dataset, any_hu: Path, tmp_path: Path
) -> None:
    import typer

    import promptlesion as pl

    common: dict[str, Any] = {"lesions": any_hu, "device": "cpu", "config": "demo"}
    pl.train("diffusion", tiny_data.root, tmp_path / "run", method="copy-paste", **common)
    pl.synthesize(tiny_data.root, tmp_path / "run", tmp_path / "painted", {"bright": 2}, accept_all=True, **common)
    app = typer.Typer()
    app.command()(script["main"])
    arguments = ["--real", str(tiny_data.root), "--lesions", str(any_hu), "--part", "all", "--resamples", "100"]
    arguments += ["--painted", f"pasted={tmp_path / 'painted'}", "--painted", f"again={tmp_path / 'painted'}"]
    arguments += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "fidelity.json").read_text(encoding="utf-8"))
    (of_bright,) = found["appearance"]["pasted"]
    assert (found["part"], of_bright["lesion_type"], found["asked"]) == ("all", "bright", {"pasted": [], "again": []})
    assert {"mean_hu", "outer_hu"} <= {row["measure"] for row in of_bright["measures"]}
    assert (tmp_path / "out" / "profiles.png").is_file()
    written = (tmp_path / "out" / "fidelity.md").read_text(encoding="utf-8")
    assert "| bright | pasted | mean_hu (HU) |" in written and "| bright | pasted | energy_distance |" in written
    assert found["criteria"]["pasted"] == found["criteria"]["again"]
    assert {row["criterion"] for row in found["criteria"]["pasted"]} >= {"mean", "spread", "outer", "edge", "noise"}
    assert "| bright | pasted | spread | std_hu:" in (tmp_path / "out" / "criteria.md").read_text(encoding="utf-8")
    assert "| again | 1 |" in (tmp_path / "out" / "parts.md").read_text(encoding="utf-8")
    assert result.output.splitlines()[-1].startswith("again ")
