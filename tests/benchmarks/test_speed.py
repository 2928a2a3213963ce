"""`benchmarks/speed.py`: every part at tiny size, and what its clocks and counters say of work that is known."""

import json
import math
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from promptlesion.training.device import resolve_precision

FOLDER = Path(__file__).parents[2] / "benchmarks"
CPU = torch.device("cpu")
TINY = {
    "autoencoder": {"patch_voxels": 16, "widths": [4, 8, 8], "codebook_size": 64, "discriminator_layers": 1},
    "diffusion": {
        "patch_voxels": 24,
        "channels": [8, 16],
        "attention_levels": [1],
        "attention_head_channels": 8,
        "batch_size": 2,
    },
    "difftumor": {
        "patch_voxels": 24,
        "channels": [8, 16],
        "attention_levels": [1],
        "attention_head_channels": 8,
        "batch_size": 2,
    },
    "med_ddpm": {"patch_voxels": 16, "channels": [8, 8], "attention_levels": [1], "attention_head_channels": 8},
    "segmentation": {"patch_voxels": 16, "channels": [4, 8], "batch_size": 2},
    "synthesis": {"num_steps": 2},
}
SETTINGS = [
    part
    for section, fields in TINY.items()
    for name, value in fields.items()
    for part in ("--set", f"{section}.{name}={json.dumps(value)}")
]


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def typer_app(script: str) -> Any:
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(runpy.run_path(str(FOLDER / script))["main"])
    return app


def suite_of(out: Path, *parts: str, more: Sequence[str] = ()) -> dict[str, Any]:
    asked = [argument for part in parts for argument in ("--only", part)]
    options = ["--preset", "demo", *SETTINGS, "--seconds", "0", "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(typer_app("speed.py"), [*options, *asked, *more], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (out / "speed.md").read_text(encoding="utf-8").startswith("# Speed")
    content: dict[str, Any] = json.loads((out / "speed.json").read_text(encoding="utf-8"))
    for row in content["rows"]:
        timing = row["timing"]
        assert 0 <= timing["fastest"] <= timing["seconds"] <= timing["slowest"]
    return content


def forms_of(content: dict[str, Any], part: str) -> set[tuple[str, str]]:
    return {(row["what"], row["form"]) for row in content["rows"] if row["part"] == part}


@pytest.mark.slow
def test_steps_of_every_method_stand_beside_the_references(tmp_path: Path) -> None:
    content = suite_of(tmp_path, "denoiser")
    found = forms_of(content, "denoiser")
    for method in ("promptlesion", "difftumor", "med-ddpm"):
        assert {(f"{method}, batch {batch}", "ours") for batch in (1, 4, 16)} <= found
    assert ("promptlesion, batch 4", "MONAI DiffusionModelUNet") in found
    assert ("promptlesion, batch 4", "plain") in found
    shown = {show["what"]: show for show in content["must_show"]}
    assert {show["number"] for show in shown.values()} == {1}
    assert len(content["profiles"]) == (1 if resolve_precision(CPU, "auto") is torch.float32 else 2)
    assert all("conv" in table for table in content["profiles"].values())
    for row in content["rows"]:
        assert row["timing"]["flops"] > 0


@pytest.mark.slow
def test_a_lesion_is_held_against_the_papers_steps(tmp_path: Path) -> None:
    content = suite_of(tmp_path, "lesion")
    found = forms_of(content, "lesion")
    assert ("difftumor, ddim, 2 steps, batch 1", "ours") in found
    assert ("med-ddpm, ddim, 2 steps, batch 1", "ours") in found
    (show,) = content["must_show"]
    assert "times faster than 400 ancestral steps in float32" in show["what"]
    assert show["is_met"] == (show["value"] >= 20)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["vqgan", "diffusion", "segmentation", "patches", "prediction"])
def test_a_part_is_measured(part: str, tmp_path: Path) -> None:
    content = suite_of(tmp_path, part)
    assert forms_of(content, part)
    if part == "diffusion":
        assert {form for _, form in forms_of(content, part)} == {"ours", "encoding in the loop"}
        assert content["must_show"][0]["number"] == 4


def test_the_quantizers_agree(tmp_path: Path) -> None:
    content = suite_of(tmp_path, "quantizer")
    forms = {form for _, form in forms_of(content, "quantizer")}
    assert forms == {"ours", "MONAI EMAQuantizer", "vector-quantize-pytorch"}
    equal = [show for show in content["must_show"] if "share of codes that are those of" in show["what"]]
    assert [show["value"] for show in equal] == [1.0, 1.0]


@pytest.mark.slow
def test_the_command_line_starts_without_torch(tmp_path: Path) -> None:
    content = suite_of(tmp_path, "startup")
    assert forms_of(content, "startup") == {("promptlesion --help", "ours"), ("promptlesion config show", "ours")}
    assert not any(row["facts"]["imports_torch"] for row in content["rows"])


@pytest.mark.slow
def test_patches_are_drawn_from_a_given_dataset(tmp_path: Path) -> None:
    from timing.made_up import write_dataset

    given, spec = tmp_path / "given", tmp_path / "elsewhere.toml"
    write_dataset(given, num_cases=2, shape=(40, 36, 32))
    (given / "lesions.toml").rename(spec)
    content = suite_of(tmp_path / "out", "patches", more=["--data", str(given), "--lesions", str(spec)])
    names = {what.split(", ")[2] for what, _ in forms_of(content, "patches")}
    assert names == {"phantom", "given"}


@pytest.mark.slow
def test_waiting_and_cohorts_are_measured(tmp_path: Path) -> None:
    content = suite_of(tmp_path, "waiting", "cohort")
    waiting = [show for show in content["must_show"] if show["number"] == 5]
    assert all(0 <= show["value"] <= 1 for show in waiting)
    assert [show["what"].split(":")[0] for show in waiting] == [
        "autoencoder, batch 1, phantom",
        "segmentation, batch 2, phantom",
        "diffusion, batch 1",
    ]
    assert [show["number"] for show in content["must_show"] if show["number"] == 6] == [6]
    assert len(forms_of(content, "cohort")) == 2


def test_a_part_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--only sampling: expected one of denoiser, lesion"):
        suite_of(tmp_path, "sampling")


def test_operations_are_counted_as_they_are_done() -> None:
    from timing.clock import take_turns

    features, weight = torch.randn(2, 3, 5, 6, 7), torch.randn(4, 3, 3, 3, 3)
    tokens = torch.randn(2, 4, 9, 8)
    forms = {
        "convolution": lambda: F.conv3d(features, weight, padding=1),
        "oneDNN's own": lambda: torch.ops.aten.mkldnn_convolution(
            features, weight, None, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1
        ),
        "attention": lambda: F.scaled_dot_product_attention(tokens, tokens, tokens),
        "nothing": lambda: None,
    }
    found = take_turns(forms, device=CPU, seconds=0)
    convolution = 2 * 27 * 3 * 4 * 2 * 5 * 6 * 7
    assert found["convolution"].flops == found["oneDNN's own"].flops == convolution
    assert found["attention"].flops == 2 * (2 * 2 * 4 * 9 * 9 * 8)
    assert found["nothing"].flops is None
    assert {timing.repeats for timing in found.values()} == {4}


def test_forms_take_turns() -> None:
    from timing.clock import take_turns

    order: list[str] = []
    take_turns({name: lambda name=name: order.append(name) for name in "ab"}, device=CPU, seconds=0)
    assert order[-8:] == ["a", "b"] * 4


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="needs Linux")
def test_memory_is_what_was_held_beyond_what_was_there() -> None:
    from timing.clock import extra_mib

    there = np.ones(2**23)
    found = extra_mib(lambda: np.ones(2**24).sum(), CPU)
    assert found is not None and found == pytest.approx(128, abs=16)
    del there


def test_monais_network_has_as_many_parameters() -> None:
    from timing.denoiser import equal_unet, latent_denoiser, num_parameters
    from timing.suite import Suite

    from promptlesion.config import resolve_config

    settings = [
        "diffusion.channels=[32,64,64]",
        "diffusion.attention_levels=[2]",
        "diffusion.attention_head_channels=8",
    ]
    suite = Suite(resolve_config(preset="demo", settings=settings), CPU, Path(), seconds=0, longest_run=1)
    ours = latent_denoiser(suite, suite.config.diffusion).network
    assert num_parameters(equal_unet(suite, ours, suite.config.diffusion)) == pytest.approx(
        num_parameters(ours), rel=0.05
    )
    assert not suite.notes


def test_the_slow_convolution_is_found_in_a_profile() -> None:
    from timing.denoiser import slow_convolutions

    features, weight = torch.randn(1, 2, 4, 4, 4), torch.randn(2, 2, 3, 3, 3)
    slow, table = slow_convolutions(
        lambda: torch.ops.aten.slow_conv3d(features, weight, [3, 3, 3], None, [1, 1, 1], [1, 1, 1])
    )
    assert slow > 0 and "slow_conv3d" in table
    assert slow_convolutions(lambda: torch.mm(torch.eye(3), torch.eye(3)))[0] == 0


def test_a_must_show_is_met_from_its_threshold_on() -> None:
    from timing.suite import Show

    assert Show(2, "", 20.0, 20.0).is_met and not Show(2, "", 19.9, 20.0).is_met
    assert Show(5, "", 0.05, 0.05, is_least=False).is_met and not Show(5, "", 0.06, 0.05, is_least=False).is_met


def test_rows_are_held_against_the_plain_network_in_float32() -> None:
    from timing.clock import Timing
    from timing.suite import Row
    from timing.tables import times_plain

    def row(what: str, form: str, precision: str, seconds: float) -> Row:
        return Row("vqgan", what, form, precision, Timing(seconds, seconds, seconds, 1, None, None))

    rows = [row("encode", "ours", "bfloat16", 2.0), row("encode", "ours", "float32", 4.0)]
    rows += [row("encode", "plain", "float32", 6.0), row("decode", "ours", "bfloat16", 1.0)]
    assert [times_plain(own, rows) for own in rows] == [3.0, 1.5, 1.0, None]


def test_the_other_precision_is_left_out_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    from timing import suite as suites
    from timing.clock import Timing
    from timing.suite import Row, Suite

    from promptlesion.config import resolve_config

    # a CPU with bfloat16, whichever this one is: on one without, float32 is what is chosen and is never left out
    monkeypatch.setattr(suites, "resolve_precision", lambda device, precision: getattr(torch, precision))
    suite = Suite(resolve_config(preset="demo"), CPU, Path(), seconds=0, longest_run=12)
    assert suite.precisions == ["bfloat16", "float32"]
    suite.rows.append(Row("a", "b", "ours", "bfloat16", Timing(7, 7, 7, 1, None, None)))
    assert suite.is_spare("a", "b", "float32", "bfloat16")
    assert suite.notes == ["a: b, float32: left out, a run would take about 14 s"]
    assert not suite.is_spare("a", "b", "float32", "float32")
    assert not suite.is_spare("a", "b", "bfloat16", "bfloat16")
    assert not suite.is_spare("a", "c", "float32", "bfloat16")
    monkeypatch.setattr(suites, "resolve_precision", lambda device, precision: torch.float32)
    assert suite.precisions == ["float32"]
    assert not suite.is_spare("a", "b", "float32", "bfloat16")
    assert suite.few(12, 3) == 3 and suite.few(2, 3) == 2
    assert suite.is_too_long("d", 2.0, share=1 / 8) and not suite.is_too_long("d", 2.0)


def test_growth_is_the_exponent_between_the_largest_sizes() -> None:
    from timing.growing import Point

    growth = runpy.run_path(str(FOLDER / "growth.py"))
    exponent, table = growth["exponent"], growth["table"]
    sizes = [10, 100, 1000]
    assert exponent(sizes, [5.0, 7.0 * 100**1.5, 7.0 * 1000**1.5]) == pytest.approx(1.5)
    assert exponent(sizes[:1], [1.0]) is None
    lines = table([Point("cases", "open", size, 2e-3 * size**2, None, 3 * size) for size in sizes])
    assert lines[2:] == ["| cases | open | 10, 100, 1000 | 0.2, 20, 2e+03 | 2.00 | - | - | 30, 300, 3000 | 1.00 |"]
    lines = table([Point("cases", "open", size, 1.0, None, 3 * size if size < 1000 else None) for size in sizes])
    assert lines[2:] == ["| cases | open | 10, 100, 1000 | 1, 1, 1 | 0.00 | - | - | 30, 300, - | 1.00 |"]


def test_calls_are_counted_and_memory_is_that_of_the_work(tmp_path: Path) -> None:
    from timing.growing import measured

    def work(folder: Path) -> int:
        folder.mkdir()
        return int(sum(math.gcd(12, index) for index in range(100)) + np.ones(2**20).sum())

    found = measured("cases", "work", 3, work, tmp_path)
    assert found.calls >= 100
    assert found.mib == pytest.approx(8, abs=1)
    assert not list(tmp_path.iterdir())
    timed = measured("cases", "work", 3, work, tmp_path, is_counted=False)
    assert timed.calls is None and timed.mib is None and timed.seconds >= 0


@pytest.mark.slow
def test_growth_is_measured_along_every_axis(tmp_path: Path) -> None:
    sizes = {"--cases": (4, 8), "--edge": (48, 64), "--lesions": (1, 2), "--codes": (64, 128), "--workers": (1, 2)}
    asked = [str(part) for option, values in sizes.items() for value in values for part in (option, value)]
    result = CliRunner().invoke(typer_app("growth.py"), [*asked, "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "growth.json").read_text())["points"]
    assert len({point["axis"] for point in points}) == 5
    assert (tmp_path / "growth.png").is_file()


@pytest.mark.slow
def test_the_gpus_script_runs_to_its_end_on_a_cpu(tmp_path: Path) -> None:
    asked = ["--preset", "demo", *SETTINGS, "--device", "cpu", "--steps", "3", "--train-steps", "8", "--product", "64"]
    result = CliRunner().invoke(typer_app("gpu.py"), [*asked, "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not [value for value in found.values() if isinstance(value, str) and value.startswith("failed")]
    assert found["default sampler, float32"]["best, volumes a minute"] > 0
    in_bfloat16 = found["default sampler, bfloat16"]
    if resolve_precision(CPU, "auto") is torch.bfloat16:
        assert in_bfloat16["best, volumes a minute"] > 0
    else:
        assert in_bfloat16 == "left out: no arithmetic for it on this device"
    assert found["diffusion training"]["days"] > 0
    left_out = CliRunner().invoke(typer_app("gpu.py"), [*asked, "--minutes", "0", "--out", str(tmp_path)])
    assert left_out.exit_code == 0
