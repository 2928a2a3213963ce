"""The table of how lesions look: closed forms on made-up lesions, and the command."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.lesions import LesionCrop

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPACING_MM = (0.5, 0.6, 0.4)
RADIUS_MM = 5.0


@pytest.fixture(scope="module")
def script() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "fidelity.py"))
    sys.path.remove(str(FOLDER))


def ball(inside_hu: float = 100.0, *, blur_mm: float = 0.0, noise_hu: float = 0.0, grain_mm: float = 0.0) -> LesionCrop:
    """A ball of 5 mm in surroundings of 40 HU, with an edge as blurred and a noise as coarse as asked for."""
    shape = (44, 38, 54)
    positions = [(np.arange(n) - n / 2 + 0.5) * side for n, side in zip(shape, SPACING_MM, strict=True)]
    distance = np.sqrt(sum(axis**2 for axis in np.meshgrid(*positions, indexing="ij")))
    mask = distance <= RADIUS_MM
    hu = np.where(mask, inside_hu, 40.0)
    if blur_mm:
        hu = ndimage.gaussian_filter(hu, [blur_mm / side for side in SPACING_MM])
    noise = np.random.default_rng(0).normal(size=shape)
    if grain_mm:
        noise = ndimage.gaussian_filter(noise, [grain_mm / side for side in SPACING_MM])
    hu = hu + noise_hu * noise / noise.std()
    return LesionCrop("case", "subject", "tumour", hu.astype(np.float32), mask, (0, 0, 0), SPACING_MM)


def test_a_sharp_ball_is_what_it_is(script: dict[str, Any]) -> None:
    found = script["appearance"](ball())
    assert found["mean_hu"] == found["outer_hu"] == found["core_hu"] == pytest.approx(100)
    assert found["contrast_hu"] == pytest.approx(60)
    assert (found["std_hu"], found["halo_hu"], found["share_above_300"]) == (0, 0, 0)
    assert found["diameter_mm"] == pytest.approx(2 * RADIUS_MM, rel=0.02)
    assert found["low_frequency_hu"] == pytest.approx(0, abs=1e-6) or np.isnan(found["low_frequency_hu"])


def test_a_blurred_edge_fades_and_has_a_halo(script: dict[str, Any]) -> None:
    sharp, blurred = script["appearance"](ball()), script["appearance"](ball(blur_mm=0.8))
    assert 60 < blurred["outer_hu"] < 90
    assert blurred["core_hu"] == pytest.approx(100, abs=1)
    assert 3 < blurred["halo_hu"] < 25
    assert 0 < blurred["edge_hu_per_mm"] < sharp["edge_hu_per_mm"]
    assert script["appearance"](ball(-20.0, blur_mm=0.8))["edge_hu_per_mm"] < 0


def test_noise_and_mottling_lie_in_their_bands(script: dict[str, Any]) -> None:
    fine, coarse = script["appearance"](ball(noise_hu=10)), script["appearance"](ball(noise_hu=10, grain_mm=2.0))
    assert fine["noise_hu"] == pytest.approx(10, rel=0.1)
    assert fine["low_frequency_hu"] < 1.5
    assert coarse["noise_hu"] < 2
    assert coarse["low_frequency_hu"] > coarse["mid_frequency_hu"]
    assert abs(fine["grain"]) < 0.1 < 0.8 < coarse["grain"]


def test_the_profile_is_flat_but_for_the_edge(script: dict[str, Any]) -> None:
    profile, depths = script["edge_profile"](ball()), np.array(script["PROFILE_MM"])
    assert profile[depths > 0.35] == pytest.approx(100)
    assert profile[depths < -0.35] == pytest.approx(40)


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
