"""Stage 1 trains, can be killed, and comes out the same."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.trained import trained

from promptlesion.autoencoder.autoencoder import load_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.spec import DatasetSpec
from promptlesion.features.medicalnet import MedicalNet
from promptlesion.training.atomic import file_hash
from promptlesion.training.run import RunError, read_metrics

CPU = torch.device("cpu")


@pytest.fixture
def train(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_config: AutoencoderConfig,
) -> partial[object]:
    """The training of `tiny_autoencoder_run`, to be called with another `out`."""
    return partial(
        trained,
        train_autoencoder,
        train_cases=tiny_cases[:3],
        validation_cases=tiny_cases[3:],
        spec=tiny_spec,
        labels=tiny_labels,
        config=tiny_autoencoder_config,
        seed=7,
        device="cpu",
    )


def test_killed_in_the_adversarial_phase_it_ends_with_the_weights_of_an_unbroken_run(
    train: partial[object],
    tiny_autoencoder_run: Path,
    tmp_path: Path,
    kill_in_the_middle: Callable[..., None],
) -> None:
    kill_in_the_middle(partial(train, out=tmp_path), out=tmp_path, after_steps=13)
    assert 12 <= torch.load(tmp_path / "state.pt", weights_only=True)["step"] < 20
    assert not json.loads((tmp_path / "run.json").read_text())["is_finished"]
    assert not (tmp_path / "checkpoint").exists()
    train(out=tmp_path)
    for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (tiny_autoencoder_run / name).read_bytes(), name


def test_killed_between_training_and_checkpoint_it_writes_the_same_checkpoint(
    train: partial[object], tiny_autoencoder_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(tiny_autoencoder_run, out)
    shutil.rmtree(out / "checkpoint")
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "is_finished": False}))
    train(out=out)
    weights = "checkpoint/weights.safetensors"
    assert (out / weights).read_bytes() == (tiny_autoencoder_run / weights).read_bytes()


def test_bfloat16_and_one_loss_alone_train_too(
    train: partial[object],
    tiny_autoencoder_run: Path,
    tiny_autoencoder_config: AutoencoderConfig,
    tmp_path: Path,
) -> None:
    config = tiny_autoencoder_config.model_copy(
        update={"precision": "bfloat16", "perceptual_weight": 0.0, "adversarial_weight": 0.0, "num_epochs": 2}
    )
    train(out=tmp_path, config=config)
    lines = read_metrics(tmp_path)
    assert lines[0].keys() == {"step", "l1", "commitment"}
    assert lines[-1].keys() == {"step", "l1", "commitment", "codebook_perplexity"}
    assert lines[0]["l1"] == pytest.approx(read_metrics(tiny_autoencoder_run)[0]["l1"], rel=0.05)


def test_the_adversarial_losses_are_weighed_by_their_gradients(
    train: partial[object], tiny_autoencoder_config: AutoencoderConfig, tmp_path: Path
) -> None:
    """From the first adversarial step on, and the run differs from there."""
    config = tiny_autoencoder_config.model_copy(update={"adversarial_weighting": "adaptive", "num_epochs": 3})
    train(out=tmp_path, config=config)
    lines = read_metrics(tmp_path)
    assert ["adaptive_weight" in line for line in lines] == [False] * 8 + [True] * 4
    assert all(0 < line["adaptive_weight"] <= 1e4 for line in lines[8:])


def test_medicalnet_is_part_of_the_runs_identity(
    train: partial[object], tiny_autoencoder_config: AutoencoderConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "resnet_10.pth"
    torch.manual_seed(0)
    torch.save({"state_dict": MedicalNet(10).state_dict()}, weights)
    config = tiny_autoencoder_config.model_copy(
        update={
            "perceptual_network": "medicalnet",
            "medicalnet_weights": str(weights),
            "num_epochs": 2,
            "steps_per_epoch": 2,
            "adversarial_weight": 0.0,
        }
    )
    out = tmp_path / "run"
    train(out=out, config=config)
    assert all(line["perceptual"] > 0 for line in read_metrics(out))
    assert load_autoencoder(out, CPU).card["medicalnet weights"] == file_hash(weights)
    torch.save({"state_dict": MedicalNet(10).state_dict()}, weights)
    with pytest.raises(RunError, match=r"inputs\.medicalnet weights"):
        train(out=out, config=config)


def test_a_finished_run_is_left_alone(train: partial[object], tiny_autoencoder_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_autoencoder_run.rglob("*")}
    train(out=tiny_autoencoder_run)
    assert {path: path.stat().st_mtime_ns for path in tiny_autoencoder_run.rglob("*")} == before


def test_another_seed_or_other_cases_are_refused(
    train: partial[object], tiny_autoencoder_run: Path, tiny_cases: list[CachedCase]
) -> None:
    with pytest.raises(RunError, match=r"seed \(7 instead of 8\)"):
        train(out=tiny_autoencoder_run, seed=8)
    with pytest.raises(RunError, match=r"inputs\.training cases .*inputs\.data"):
        train(out=tiny_autoencoder_run, train_cases=tiny_cases[:2])


def test_codebook_and_discriminators_start_at_their_epochs(tiny_autoencoder_run: Path) -> None:
    lines = read_metrics(tiny_autoencoder_run)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert ["discriminator" in line for line in lines] == [False] * 8 + [True] * 12
    assert ["codebook_perplexity" in line for line in lines] == [False] * 4 + [True] * 16
    assert all({"l1", "commitment", "perceptual"} <= line.keys() for line in lines)


def test_the_card_says_what_other_stages_must_know(
    tiny_autoencoder_run: Path,
    tiny_spec: DatasetSpec,
    tiny_cases: list[CachedCase],
    tiny_autoencoder_config: AutoencoderConfig,
) -> None:
    trained = load_autoencoder(tiny_autoencoder_run, CPU)
    assert trained.config == tiny_autoencoder_config
    assert DatasetSpec.model_validate(trained.card["dataset"]) == tiny_spec
    assert trained.spec == tiny_spec
    assert {name: trained.card[name] for name in tiny_spec.facts()} == tiny_spec.facts()
    assert trained.card["method"] == "vqgan"
    assert trained.card["latent_scale"] == {
        "mean": trained.network.latent_mean.tolist(),
        "std": trained.network.latent_std.tolist(),
    }
    assert trained.card["data_fingerprint"] == data_fingerprint(tiny_cases[:3])
    assert trained.card["training_subjects"] == ["tiny_0", "tiny_1", "tiny_2"]
    bias = trained.card["lesion_bias"]
    assert isinstance(bias, list)
    assert [entry["lesion_type"] for entry in bias] == ["bright", "dark"]
    assert bias[0]["real_mean_hu"] == pytest.approx(550, abs=15)
    assert bias[1]["real_mean_hu"] == pytest.approx(0, abs=15)


def test_the_latents_scale_is_measured(tiny_autoencoder_run: Path, tiny_cases: list[CachedCase]) -> None:
    network = load_autoencoder(tiny_autoencoder_run, CPU).network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    image = torch.from_numpy(tiny_cases[0].image[:24, :24, :24].astype("float32"))[None, None]
    latent = network.encode(((image + 200) / 500 - 1).clamp(-1, 1))
    assert 0.3 < latent.std().item() < 3
