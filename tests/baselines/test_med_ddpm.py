"""Med-DDPM learns voxels under noise, can be killed, and comes out the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.lesion_batches import LesionBatches
from promptlesion.baselines.med_ddpm import MedDDPMSynthesizer, load_med_ddpm
from promptlesion.baselines.voxel_denoiser import build_voxel_denoiser
from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.prompt.encoders import masks_by_type
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.training.device import autocast
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.run import RunError, read_metrics

CPU = torch.device("cpu")


@pytest.fixture
def batches(tiny_cases: list[CachedCase], tiny_spec: DatasetSpec) -> LesionBatches:
    return LesionBatches(tiny_cases[:3], spec=tiny_spec, patch_voxels=16, seed=5)


@pytest.fixture
def synthesizer(med_ddpm_run: Path, sampling: SynthesisConfig) -> MedDDPMSynthesizer:
    return load_med_ddpm(med_ddpm_run, sampling, device="cpu")


def test_a_patch_shows_its_lesion_in_the_channel_of_its_type(batches: LesionBatches) -> None:
    """Bright lesions have 550 HU and dark ones 0 in a window of -200 to 800."""
    batch = batches.draw(0, range(16))
    assert batch.image.shape == (16, 1, 16, 16, 16)
    assert batch.labels.shape == (16, 2, 16, 16, 16)
    assert set(batch.labels.unique().tolist()) == {0.0, 1.0}
    types = batch.labels.sum(dim=(2, 3, 4)).argmax(dim=1)
    assert set(types.tolist()) == {0, 1}
    for image, labels, kind in zip(batch.image, batch.labels, types, strict=True):
        assert labels[kind].sum() > 0
        assert labels[1 - kind].sum() == 0
        mean = float(image[0][labels[kind] > 0].mean())
        assert mean == pytest.approx((0.5, -0.6)[kind], abs=0.1)


def test_an_item_is_the_same_in_any_share_of_the_batch(batches: LesionBatches) -> None:
    whole, half = batches.draw(3, range(4)), batches.draw(3, range(2, 4))
    assert torch.equal(whole.image[2:], half.image)
    assert torch.equal(whole.labels[2:], half.labels)
    assert not torch.equal(whole.image, batches.draw(4, range(4)).image)


def test_cases_without_lesions_are_refused(tiny_spec: DatasetSpec) -> None:
    with pytest.raises(ValueError, match="expected lesions in the 0 training cases; found none"):
        LesionBatches([], spec=tiny_spec, patch_voxels=16, seed=0)


def test_labels_are_one_hot() -> None:
    mask = torch.zeros(2, 1, 2, 3, 4)
    mask[:, :, 1, 2, 3] = 1
    labels = masks_by_type(torch.tensor([2, 0]), mask, num_types=3)
    assert labels.shape == (2, 3, 2, 3, 4)
    assert labels.nonzero().tolist() == [[0, 2, 1, 2, 3], [1, 0, 1, 2, 3]]


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_the_estimate_is_clipped_and_its_parts_add_up(tiny_med_ddpm_config: MedDDPMConfig, prediction: str) -> None:
    torch.manual_seed(0)
    config = tiny_med_ddpm_config.model_copy(update={"prediction": prediction})
    denoiser = build_voxel_denoiser(config, num_types=2).requires_grad_(requires_grad=False)
    noisy, labels = 3 * torch.randn(2, 1, 8, 10, 12), torch.zeros(2, 2, 8, 10, 12)
    for level in (0, 10, 19):
        estimate = denoiser.bound(labels, [level])(noisy, level)
        pair = denoiser.schedule.at(level)
        assert -1 <= float(estimate.clean.min()) <= float(estimate.clean.max()) <= 1
        together = pair.signal * estimate.clean + pair.noise * estimate.noise
        torch.testing.assert_close(together, noisy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["noise", "v"])
def test_a_perfect_prediction_gives_the_patch_back(
    tiny_med_ddpm_config: MedDDPMConfig, monkeypatch: pytest.MonkeyPatch, prediction: str
) -> None:
    config = tiny_med_ddpm_config.model_copy(update={"prediction": prediction})
    denoiser = build_voxel_denoiser(config, num_types=2)
    clean, noise = 2 * torch.rand(2, 1, 4, 5, 6) - 1, torch.randn(2, 1, 4, 5, 6)
    for level in (0, 10, 18):
        levels = torch.full((2,), level)
        perfect = denoiser.schedule.target(clean, noise, levels, denoiser.prediction)
        monkeypatch.setattr(denoiser.network, "predict", lambda *_, perfect=perfect: perfect)
        noisy = denoiser.schedule.add_noise(clean, noise, levels)
        estimate = denoiser.bound(torch.zeros(2, 2, 4, 5, 6), [level])(noisy, level)
        torch.testing.assert_close(estimate.clean, clean, rtol=0, atol=1e-4)
        torch.testing.assert_close(estimate.noise, noise, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@torch.no_grad()
def test_the_bound_denoiser_predicts_as_the_plain_one(tiny_med_ddpm_config: MedDDPMConfig, precision: str) -> None:
    torch.manual_seed(0)
    denoiser = build_voxel_denoiser(tiny_med_ddpm_config.model_copy(update={"prediction": "v"}), num_types=2).eval()
    for parameter in denoiser.parameters():
        parameter.normal_(std=0.1)
    noisy, labels = torch.randn(2, 1, 8, 10, 12), (torch.rand(2, 2, 8, 10, 12) > 0.8).float()
    with autocast(torch.device("cpu"), precision):
        denoise = denoiser.bound(labels, [15, 3])
        for level in (15, 3):
            predicted = denoiser(noisy, torch.full((2,), level), labels)
            pair = denoiser.schedule.at(level)
            clean = (pair.signal * noisy - pair.noise * predicted).clamp(-1, 1)
            tolerance = 1e-4 if precision == "float32" else 0.02
            torch.testing.assert_close(denoise(noisy, level).clean, clean, rtol=tolerance, atol=tolerance)


def test_the_schedule_is_the_cosine(tiny_med_ddpm_config: MedDDPMConfig) -> None:
    config = tiny_med_ddpm_config.model_copy(update={"num_levels": 250})
    alpha_bar = build_voxel_denoiser(config, num_types=2).schedule.signal.square()
    expected = (
        np.cos(((np.arange(1, 251) / 250) + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    )
    np.testing.assert_allclose(alpha_bar[:-1], expected[:-1], rtol=1e-9)


def test_one_batch_is_learned_by_heart(
    tiny_cases: list[CachedCase], tiny_spec: DatasetSpec, tiny_med_ddpm_config: MedDDPMConfig
) -> None:
    torch.manual_seed(0)
    denoiser = build_voxel_denoiser(tiny_med_ddpm_config, num_types=2)
    batch = LesionBatches(tiny_cases[:3], spec=tiny_spec, patch_voxels=8, seed=5).draw(0, range(2))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=5e-3)
    losses = []
    for _ in range(100):
        level, noise = torch.randint(20, (2,)), torch.randn(batch.image.shape)
        noisy = denoiser.schedule.add_noise(batch.image, noise, level)
        loss = (denoiser(noisy, level, batch.labels) - noise).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx((2 / np.pi) ** 0.5, rel=0.05)  # the mean of |noise|: nothing is predicted yet
    assert np.mean(losses[-20:]) < 0.35 * losses[0]


def test_killed_it_ends_with_the_weights_of_an_unbroken_run(
    med_ddpm: partial[object], med_ddpm_run: Path, kill_in_the_middle: Callable[..., None]
) -> None:
    out = med_ddpm_run.parent / "med-ddpm-killed"
    kill_in_the_middle(partial(med_ddpm, out=out), out=out, after_steps=7)
    assert 6 <= torch.load(out / "state.pt", weights_only=True)["step"] < 30
    assert not (out / "checkpoint").exists()
    med_ddpm(out=out)
    for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
        assert (out / name).read_bytes() == (med_ddpm_run / name).read_bytes(), name


def test_a_finished_run_is_left_alone_and_another_configuration_refused(
    med_ddpm: partial[object], med_ddpm_run: Path, tiny_med_ddpm_config: MedDDPMConfig
) -> None:
    before = {path: path.stat().st_mtime_ns for path in med_ddpm_run.rglob("*")}
    med_ddpm(out=med_ddpm_run)
    assert {path: path.stat().st_mtime_ns for path in med_ddpm_run.rglob("*")} == before
    with pytest.raises(RunError, match=r"config\.loss \('l1' instead of 'mse'\)"):
        med_ddpm(out=med_ddpm_run, config=tiny_med_ddpm_config.model_copy(update={"loss": "mse"}))


def test_every_step_is_logged_and_the_squared_error_learns_too(
    med_ddpm: partial[object], med_ddpm_run: Path, tiny_med_ddpm_config: MedDDPMConfig, tmp_path: Path
) -> None:
    squared = tiny_med_ddpm_config.model_copy(update={"loss": "mse", "num_steps": 2})
    med_ddpm(out=tmp_path, config=squared)
    lines = read_metrics(med_ddpm_run)
    assert [line["step"] for line in lines] == list(range(1, 31))
    # of unit noise an untrained network misses all: its mean square, and its mean absolute value
    assert read_metrics(tmp_path)[0]["loss"] == pytest.approx(1, rel=0.1)
    assert lines[0]["loss"] == pytest.approx((2 / np.pi) ** 0.5, rel=0.05)


def test_what_is_loaded_is_the_average_and_frozen(
    med_ddpm_run: Path, synthesizer: MedDDPMSynthesizer, tiny_med_ddpm_config: MedDDPMConfig, tiny_spec: DatasetSpec
) -> None:
    trained = synthesizer
    assert (trained.settings, trained.card.spec) == (tiny_med_ddpm_config, tiny_spec)
    assert not trained.denoiser.training
    assert not any(parameter.requires_grad for parameter in trained.denoiser.parameters())
    average = torch.load(med_ddpm_run / "state.pt", weights_only=True)["networks"]["average"]
    assert all(torch.equal(tensor, average[name]) for name, tensor in trained.denoiser.state_dict().items())
    card = json.loads((med_ddpm_run / "checkpoint" / "card.json").read_text())
    assert (card["stage"], card["method"]) == ("med-ddpm", "med-ddpm")
    assert card["config"]["num_levels"] == 20


def test_the_scan_is_not_seen_and_the_labels_are(
    scene: tuple[Volume, list[PlacedLesion]], synthesizer: MedDDPMSynthesizer
) -> None:
    image, lesions = scene
    generator = torch.Generator().manual_seed(0)
    for parameter in synthesizer.denoiser.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    plain = synthesizer.paint([image], lesions[:1], types=[0], seeds=[3])[0]
    elsewhere = synthesizer.paint([image.with_array(image.array + 100)], lesions[:1], types=[0], seeds=[3])[0]
    np.testing.assert_array_equal(plain, elsewhere)
    as_dark = synthesizer.paint([image], lesions[:1], types=[1], seeds=[3])[0]
    assert np.abs(plain - as_dark).max() > 1
    grown = replace(lesions[0], mask=lesions[0].mask | np.roll(lesions[0].mask, 1, axis=0))
    moved = synthesizer.paint([image], [grown], types=[0], seeds=[3])[0]
    assert np.abs(plain - moved).max() > 1


@pytest.mark.parametrize(("choice", "is_said"), [("on", True), ("off", False)])
def test_its_steps_are_recorded_where_that_can_be_had(
    scene: tuple[Volume, list[PlacedLesion]],
    med_ddpm_run: Path,
    sampling: SynthesisConfig,
    caplog: pytest.LogCaptureFixture,
    choice: str,
    is_said: bool,
) -> None:
    image, lesions = scene
    hardware = HardwareConfig(compile=choice)
    synthesizer = load_med_ddpm(med_ddpm_run, sampling, device="cpu", hardware=hardware)
    synthesizer.paint([image], lesions[:1], types=[0], seeds=[3])
    assert caplog.text.count("no CUDA graph of the denoiser's step can be recorded (found the device cpu)") == is_said


def test_settings_without_effect_are_refused(med_ddpm_run: Path, sampling: SynthesisConfig) -> None:
    for change, message in (
        ({"init": "healthy"}, r"expected synthesis\.init=noise \(found healthy\)"),
        ({"reinject_background": True}, r"synthesis\.reinject_background=false \(found True\)"),
        ({"guidance_scale": 1.5}, r"synthesis\.guidance_scale=1\.0 \(found 1\.5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_med_ddpm(med_ddpm_run, sampling.model_copy(update=change), device="cpu")


def test_edge_and_extent(synthesizer: MedDDPMSynthesizer) -> None:
    """Three voxels of 1.5 mm; 16 voxels of 1 mm less an eighth on either side."""
    assert (synthesizer.card.edge_mm, synthesizer.card.max_extent_mm) == (4.5, 12.0)
    assert len(synthesizer.card.model_hash) == 64
