"""Stage 2 trains, can be killed, and comes out the same."""

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from tests.trained import trained

from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.spec import DatasetSpec
from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.sampler import NoiseSource, sample
from promptlesion.diffusion.train import load_diffusion, train_diffusion
from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.run import RunError, read_metrics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_diffusion_config: DiffusionConfig,
) -> partial[object]:
    return partial(
        trained,
        train_diffusion,
        train_cases=tiny_cases[:3],
        spec=tiny_spec,
        labels=tiny_labels,
        autoencoder_run=tiny_autoencoder_run,
        config=tiny_diffusion_config,
        seed=7,
        device="cpu",
    )


@pytest.fixture(scope="module")
def unbroken(tiny_diffusion_run: Path) -> Path:
    return tiny_diffusion_run


def test_killed_it_ends_with_the_weights_of_an_unbroken_run(
    train: partial[object], unbroken: Path, kill_in_the_middle: Callable[..., None]
) -> None:
    out = unbroken.parent / "diffusion-killed"
    kill_in_the_middle(partial(train, out=out), out=out, after_steps=10)
    assert 9 <= torch.load(out / "state.pt", weights_only=True)["step"] < 40
    assert not json.loads((out / "run.json").read_text())["is_finished"]
    assert not (out / "checkpoint").exists()
    train(out=out)
    for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name


def test_killed_between_training_and_checkpoint_it_writes_the_same_checkpoint(
    train: partial[object], unbroken: Path
) -> None:
    out = unbroken.parent / "diffusion-without-checkpoint"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "checkpoint")
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "is_finished": False}))
    train(out=out)
    weights = "checkpoint/weights.safetensors"
    assert (out / weights).read_bytes() == (unbroken / weights).read_bytes()


def test_bfloat16_learns_too(train: partial[object], unbroken: Path, tiny_diffusion_config: DiffusionConfig) -> None:
    out = unbroken.parent / "diffusion-bfloat16"
    train(out=out, config=tiny_diffusion_config.model_copy(update={"precision": "bfloat16"}))
    pairs = zip(read_metrics(out), read_metrics(unbroken), strict=True)
    assert all(line["loss"] == pytest.approx(exact["loss"], rel=0.1) for line, exact in pairs)


def test_a_finished_run_is_left_alone(train: partial[object], unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    train(out=unbroken)
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_another_configuration_is_refused(
    train: partial[object], unbroken: Path, tiny_diffusion_config: DiffusionConfig
) -> None:
    other = tiny_diffusion_config.model_copy(update={"prediction": "noise"})
    with pytest.raises(RunError, match=r"config\.prediction \('v' instead of 'noise'\)"):
        train(out=unbroken, config=other)


def test_every_step_is_logged(unbroken: Path) -> None:
    lines = read_metrics(unbroken)
    assert [line["step"] for line in lines] == list(range(1, 41))
    # of v, whose two parts have unit variance, an untrained network misses all
    assert lines[0]["loss"] == pytest.approx(1, rel=0.5)


def test_what_is_loaded_is_the_average_and_frozen(
    unbroken: Path, tiny_diffusion_config: DiffusionConfig, tiny_spec: DatasetSpec
) -> None:
    trained = load_diffusion(unbroken, CPU)
    assert trained.config == tiny_diffusion_config
    assert trained.spec == tiny_spec
    assert not trained.denoiser.training
    assert not any(parameter.requires_grad for parameter in trained.denoiser.parameters())
    state = torch.load(unbroken / "state.pt", weights_only=True)["networks"]
    loaded = trained.denoiser.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state["average"].items())
    assert not all(torch.equal(tensor, loaded[name]) for name, tensor in state["denoiser"].items())


def test_runs_may_move_together_but_not_apart(unbroken: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(unbroken.parent / "autoencoder", moved / "autoencoder")
    shutil.copytree(unbroken, moved / "diffusion")
    load_diffusion(moved / "diffusion", CPU)
    shutil.rmtree(moved / "autoencoder")
    with pytest.raises(CheckpointError, match="expected a finished autoencoder checkpoint"):
        load_diffusion(moved / "diffusion", CPU)


def test_another_autoencoder_is_refused(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken.parent / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(unbroken, tmp_path / "diffusion")
    card_path = tmp_path / "diffusion" / "checkpoint" / "card.json"
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps({**card, "autoencoder_sha256": "0" * 64}))
    with pytest.raises(
        ValueError, match=r"expected the autoencoder .* was trained with; found another one, with weights_sha256"
    ):
        load_diffusion(tmp_path / "diffusion", CPU)


def test_weights_of_another_network_are_refused_by_name(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken.parent / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(unbroken, tmp_path / "diffusion")
    card_path = tmp_path / "diffusion" / "checkpoint" / "card.json"
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps({**card, "config": {**card["config"], "prompt_encoder": "one-hot"}}))
    message = (
        r"the weights of the Denoiser .* found Unexpected key.*prompt_encoder.*\[\.\.\.\] size mismatch for network"
    )
    with pytest.raises(CheckpointError, match=message):
        load_diffusion(tmp_path / "diffusion", CPU)


def test_the_card_says_what_the_network_is_bound_to(
    unbroken: Path, tiny_cases: list[CachedCase], tiny_spec: DatasetSpec
) -> None:
    card = json.loads((unbroken / "checkpoint" / "card.json").read_text())
    network = load_diffusion(unbroken, CPU).autoencoder.network
    expected = {
        "stage": "diffusion",
        "method": "promptlesion",
        "schedule": "linear",
        "num_levels": 20,
        "first_beta": 0.005,
        "last_beta": 0.999,
        "window_hu": [-200.0, 800.0],
        "spacing_mm": [1.0, 1.0, 1.5],
        "lesion_types": ["bright", "dark"],
        "latent_scale": {"mean": network.latent_mean.tolist(), "std": network.latent_std.tolist()},
        "data_fingerprint": data_fingerprint(tiny_cases[:3]),
    }
    assert {name: card[name] for name in expected} == expected
    assert {"format_version", "versions", "weights_sha256", "autoencoder_sha256", "last_alpha_bar"} <= set(card)


def test_a_card_from_before_there_was_a_choice_of_prompt_block_is_read(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken.parent / "autoencoder", tmp_path / "autoencoder")
    shutil.copytree(unbroken, tmp_path / "diffusion")
    card_path = tmp_path / "diffusion" / "checkpoint" / "card.json"
    card = json.loads(card_path.read_text())
    assert card["config"].pop("prompt_block") == "components"
    card_path.write_text(json.dumps(card))
    assert load_diffusion(tmp_path / "diffusion", CPU).config == load_diffusion(unbroken, CPU).config


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm-solver++"])
def test_a_rectified_flow_under_an_upsampled_embedding_is_trained_and_sampled(
    flow: Path, sampler: Literal["ancestral", "ddim", "dpm-solver++"]
) -> None:
    model = load_diffusion(flow, CPU)
    assert (model.card["schedule"], model.card["last_signal"]) == ("rectified-flow", 0.0)
    assert all(report["loss"] > 0 for report in read_metrics(flow))
    schedule = model.denoiser.schedule
    levels, source = schedule.spaced_levels(4), NoiseSource([1, 2], (4, 6, 6, 6), CPU)
    surroundings = torch.zeros(2, 4, 6, 6, 6)
    conditioning = Conditioning(surroundings, torch.ones(2, 1, 6, 6, 6), torch.tensor([0, 1]))
    latent = sample(
        source.draw(),
        sampler=sampler,
        schedule=schedule,
        levels=levels,
        denoise=model.denoiser.bound(conditioning, levels, guidance_scale=2.0),
        noise=source,
    )
    assert latent.isfinite().all()
    assert not torch.equal(latent[0], latent[1])


@pytest.fixture(scope="module")
def flow(train: partial[object], unbroken: Path, tiny_diffusion_config: DiffusionConfig) -> Path:
    out = unbroken.parent / "diffusion-flow"
    changes = {
        "rescale_betas": False,
        "schedule": "rectified-flow",
        "prediction": "velocity",
        "min_snr_gamma": 5.0,
        "prompt_encoder": "embedding",
        "prompt_block": "upsample",
        "prompt_components": DiffusionConfig().prompt_components,
        "num_steps": 5,
    }
    train(out=out, config=DiffusionConfig.model_validate({**tiny_diffusion_config.model_dump(), **changes}))
    return out


def test_another_window_than_the_autoencoders_is_refused(
    train: partial[object], tiny_spec: DatasetSpec, tmp_path: Path
) -> None:
    spec = tiny_spec.model_copy(update={"window_hu": (-175.0, 250.0)})
    message = r"found one with other window_hu \(\[-200.0, 800.0\] instead of \[-175.0, 250.0\]\)$"
    with pytest.raises(ValueError, match=message):
        train(out=tmp_path, spec=spec)


def test_an_autoencoder_that_cannot_show_a_lesion_is_warned_of(
    train: partial[object], unbroken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty steps do not teach it to show a bright lesion."""
    with caplog.at_level(logging.WARNING):
        train(out=unbroken)
    assert "the autoencoder shows bright at" in caplog.text


@pytest.mark.parametrize(
    "settings", [{"prefetch_batches": 0}, {"prefetch_batches": 5}, {"activation_checkpointing": "on"}]
)
def test_how_the_machine_is_used_changes_no_bit(
    train: partial[object], unbroken: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    train(out=tmp_path / "run", hardware=HardwareConfig(**settings))
    for name in ("checkpoint/weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (unbroken / name).read_bytes(), name
