"""Every verb runs to its end on a CUDA device, pretended: no tensor stays behind on the CPU, and no step waits."""

import json
from pathlib import Path

import pytest
from tests.cuda.conftest import Demo, Verb
from tests.cuda.pretended_cuda import pretended_cuda

from promptlesion.config import resolve_config
from promptlesion.cost import measure
from promptlesion.data.dataset import Dataset
from promptlesion.experiment.cells import Question, design_of, plan_cells
from promptlesion.experiment.estimate import estimate_cells
from promptlesion.experiment.execution import do
from promptlesion.experiment.experiment import Experiment

Options = list[object]


def test_the_whole_loop(demo: Demo) -> None:
    assert json.loads((demo.out / "run.json").read_text())["device"] == "pretended"
    assert (demo.out / "report.html").is_file()


@pytest.mark.parametrize(
    ("number", "settings"),
    [
        (0, {"autoencoder__perceptual_weight": 0.1, "autoencoder__adversarial_weighting": "adaptive"}),
        (1, {"autoencoder__adversarial_weight": 0.1, "hardware__activation_checkpointing": "on"}),
    ],
    ids=["perceptual loss, adaptive weight, new codebook", "checkpointed, dead codes"],
)
def test_autoencoder(
    promptlesion: Verb, on_tiny_data: Options, tmp_path: Path, number: float, settings: dict[str, object]
) -> None:
    promptlesion("train", "autoencoder", *on_tiny_data, "--out", tmp_path / "run", number=number, **settings)


def test_diffusion_without_prompt(promptlesion: Verb, on_tiny_data: Options, demo: Demo, tmp_path: Path) -> None:
    autoencoder = ["--autoencoder", demo.out / "autoencoder"]
    settings = {"diffusion__prompt_encoder": "none", "diffusion__loss": "mse", "diffusion__denoise_lesions": "true"}
    promptlesion("train", "diffusion", *on_tiny_data, *autoencoder, "--out", tmp_path / "run", **settings)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++"])
def test_painting(promptlesion: Verb, on_tiny_data: Options, demo: Demo, tmp_path: Path, sampler: str) -> None:
    counts = ["--count", "bright=2", "--count", "dark=1"]
    settings = {"synthesis__sampler": sampler, "synthesis__guidance_scale": 2, "synthesis__reinject_background": "true"}
    model, out = ["--model", demo.out / "diffusion"], tmp_path / "painted"
    promptlesion("synthesize", *on_tiny_data, *model, *counts, "--out", out, **settings)


def test_one_hot_prompts(promptlesion: Verb, on_tiny_data: Options, demo: Demo, tmp_path: Path) -> None:
    autoencoder, out = ["--autoencoder", demo.out / "autoencoder"], tmp_path / "run"
    learned = {"diffusion__prompt_encoder": "one-hot", "diffusion__prediction": "noise"}
    promptlesion("train", "diffusion", *on_tiny_data, *autoencoder, "--out", out, **learned)
    counts, settings = ["--count", "bright=1"], {"synthesis__keep_noise": "false"}
    promptlesion("synthesize", *on_tiny_data, "--model", out, *counts, "--out", tmp_path / "painted", **settings)


def test_difftumor(promptlesion: Verb, on_tiny_data: Options, demo: Demo, tmp_path: Path) -> None:
    method, autoencoder = ["--method", "difftumor", "--type", "dark"], ["--autoencoder", demo.out / "autoencoder"]
    promptlesion("train", "diffusion", *method, *on_tiny_data, *autoencoder, "--out", tmp_path / "run")


def test_dynunet(promptlesion: Verb, on_tiny_data: Options, demo: Demo, tiny_data: Dataset, tmp_path: Path) -> None:
    own, run = ["--network", "dynunet", "--synthetic", demo.out / "synthetic"], tmp_path / "run"
    promptlesion("train", "segmentation", *on_tiny_data, *own, "--out", run, segmentation__channels=[4, 8, 8])
    data = ["--data", tiny_data.root, "--part", "test"]
    promptlesion("segment", "--model", run, *data, "--mirror", "--out", tmp_path / "predicted")


def test_what_is_measured(promptlesion: Verb, demo: Demo, tiny_data: Dataset, config_file: Path) -> None:
    data = ["--data", tiny_data.root, "--config", config_file]
    promptlesion("evaluate", "reconstruction", *data, "--model", demo.out / "autoencoder", "--part", "all")
    both = ["--real", tiny_data.root, "--synthetic", demo.out / "synthetic"]
    promptlesion("evaluate", "fidelity", *both, "--config", config_file)


def test_check(
    promptlesion: Verb, tiny_data: Dataset, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _measure_quickly(monkeypatch)
    own = ["--config", config_file, "--out", tmp_path]
    promptlesion("check", tiny_data.root, *own, diffusion__prompt_encoder="none")
    assert json.loads((tmp_path / "check.json").read_text())["stages"]


def test_experiment(
    promptlesion: Verb,
    tiny_data: Dataset,
    any_hu: Path,
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The estimate and every piece of work, with Med-DDPM; not in processes of their own, which see no such device."""
    _measure_quickly(monkeypatch)
    config = resolve_config(preset="demo", file=config_file, settings=["diffusion.prompt_encoder=none"])
    experiment = Experiment(tiny_data.root, any_hu, tmp_path, config, 0, "cuda")
    asked = design_of(Question("real,med-ddpm", seeds=1), num_subjects=experiment.num_subjects, first_seed=0)
    cells = plan_cells(asked)
    with pretended_cuda():
        assert all(each.seconds > 0 for each in estimate_cells(cells, experiment, num_workers=1).values())
        for cell in cells:
            do(cell, experiment)
    assert all(cell.is_done(tmp_path) for cell in cells)


def test_a_step_waits_for_nothing(demo: Demo) -> None:
    """Stage 1 alone waits: how its codebook grows depends on what the device finds, and its perplexity is a number."""
    assert set(demo.waits) == {"autoencoder", "diffusion", "real", "mixed"}
    waits = {place for waits in demo.waits.values() for place in waits}
    assert {place.partition(":")[0] for place in waits} == {"autoencoder/quantizer.py"}


def _measure_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MEASURED_S", 0.0)
    monkeypatch.setattr(measure, "_FEWEST_MEASURED", 1)
