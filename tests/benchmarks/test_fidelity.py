"""The table of how lesions look: the energy distance, and the command."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from promptlesion.data.dataset import Dataset

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "fidelity.py"))
    sys.path.remove(str(FOLDER))


def test_the_energy_distance_grows_with_the_shift(script: dict[str, Any]) -> None:
    generator = np.random.default_rng(1)
    real, alike = generator.normal(size=(2, 200, 3))
    distances = [script["energy_distance"](real, alike + shift, real) for shift in (0.0, 0.5, 1.0)]
    assert abs(distances[0]) < 0.03
    assert distances[0] < distances[1] < distances[2]
    # in one dimension: twice the integral of the squared difference of the distribution functions; N(0, 1), N(1, 1)
    one = script["energy_distance"](real[:, :1], alike[:, :1] + 1, np.array([[-1.0], [1.0]]))
    assert one == pytest.approx(0.54, abs=0.2)


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
    arguments += ["--painted", f"pasted={tmp_path / 'painted'}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "fidelity.json").read_text(encoding="utf-8"))["rows"]
    assert {row["lesion_type"] for row in rows} == {"bright"}
    assert {"mean_hu", "outer_hu", "energy_distance"} <= {row["measure"] for row in rows}
    assert (tmp_path / "out" / "profiles.png").is_file()
    assert "| bright | pasted | mean_hu (HU) |" in (tmp_path / "out" / "fidelity.md").read_text(encoding="utf-8")
