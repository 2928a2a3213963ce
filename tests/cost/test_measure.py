"""Operations and bytes against closed forms; times that scale."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.trained import trained
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from promptlesion.autoencoder.train import train_autoencoder
from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.baselines.med_ddpm import train_med_ddpm
from promptlesion.config import Config
from promptlesion.cost import measure
from promptlesion.cost.measure import PassCost, cost_of, count_pass, measure_pass, updating_seconds_a_parameter
from promptlesion.cost.passes import (
    Bench,
    Pass,
    autoencoder_step,
    decoding,
    denoising,
    diffusion_step,
    encoding,
    segmentation_step,
    segmenting,
    voxel_step,
)
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset
from promptlesion.diffusion.train import train_diffusion
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.train import train_segmentation
from promptlesion.training.hardware import HardwareConfig

CPU = torch.device("cpu")


def convolution(edge: int, bench: Bench, channels: int = 6) -> Pass:
    layer = nn.Conv3d(2, channels, 3, padding=1, bias=False).requires_grad_(requires_grad=False)
    volume = torch.zeros(5, 2, edge, edge, edge, device=bench.device)
    return lambda: layer(volume)


def test_a_convolution_costs_what_arithmetic_says() -> None:
    count = count_pass(convolution, 8, CPU)
    assert count.flops == 2 * 5 * 8**3 * 6 * 2 * 27
    assert count.peak_bytes == 4 * (6 * 2 * 27 + 5 * 8**3 * (2 + 6))


def test_what_is_no_longer_used_is_not_counted() -> None:
    def chain(edge: int, bench: Bench) -> Pass:
        values = torch.zeros(edge, device=bench.device)

        def run() -> None:
            ends = values
            for _ in range(10):
                ends = ends + 1

        return run

    assert count_pass(chain, 1000, CPU).peak_bytes == 4 * 3 * 1000  # the start, and two in turn


def test_what_is_kept_for_the_way_back_is_counted() -> None:
    def chain(edge: int, bench: Bench) -> Pass:
        weight = torch.ones(edge, device=bench.device, requires_grad=True)

        def run() -> None:
            ends = weight
            for _ in range(10):
                ends = ends.sin()
            ends.sum().backward()

        return run

    assert 4 * 1000 * 11 <= count_pass(chain, 1000, CPU).peak_bytes <= 4 * 1000 * 14


def test_counting_takes_no_memory() -> None:
    assert count_pass(convolution, 4096, CPU).peak_bytes > 2**40


@pytest.mark.parametrize("name", ["stage 1, adversarial", "decoding"])
def test_the_codebook_of_the_paper_is_counted_with_any_number_of_threads(name: str) -> None:
    """16384 codes are searched in thousands of pieces, by threads, where there are numbers; here there are none."""
    build, before = passes(Config())[name], torch.get_num_threads()
    assert callable(build)
    counts = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            counts.append(count_pass(build, 96, CPU))
    finally:
        torch.set_num_threads(before)
    assert counts[0] == counts[1]
    assert counts[0].flops > 2 * 2 * 24**3 * 16384 * 8


def test_a_step_too_long_to_time_is_scaled_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def seconds(_: object, edge: int, __: object) -> float:
        timed.append(edge)
        return 0.1 + 0.4 * (edge / 32) ** 3

    monkeypatch.setattr(measure, "measure_pass", seconds)
    options = {"patch_voxels": 128, "updating_seconds": 0.1, "device": CPU, "free_bytes": 2**50}
    found = cost_of(convolution, smallest_patch=16, **options)  # type: ignore[arg-type]
    assert timed == [16, 32]
    assert found.measured_patch_voxels == 32
    assert found.seconds == pytest.approx(0.1 + 0.4 * 64)
    assert found.seconds_of(found.flops / 2) == pytest.approx(0.4 * 32)
    assert cost_of(convolution, smallest_patch=256, **options).measured_patch_voxels == 128  # type: ignore[arg-type]


def test_nothing_is_run_that_would_not_fit() -> None:
    options = {"patch_voxels": 64, "updating_seconds": 0.0, "device": CPU}
    found = cost_of(convolution, smallest_patch=16, free_bytes=2**20, **options)  # type: ignore[arg-type]
    assert found.measured_patch_voxels == 16


def test_seconds_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_MEASURED_S", 0.01)
    assert 0 < measure_pass(convolution, 8, CPU) < 1
    assert 0 < updating_seconds_a_parameter(CPU) < 1e-6
    assert PassCost(10.0, 0, 1.0, 0.5, 8).seconds_of(10.0) == 0.5


def passes(config: Config) -> dict[str, object]:
    """Every pass of the stages, as functions of the patch and the bench."""
    options = {"num_types": 2}
    stage_1 = partial(autoencoder_step, config.autoencoder, None)
    return {
        "stage 1": lambda edge, bench: stage_1(patch_voxels=edge, is_adversarial=False, bench=bench),
        "stage 1, adversarial": lambda edge, bench: stage_1(patch_voxels=edge, is_adversarial=True, bench=bench),
        "encoding": lambda edge, bench: encoding(config.autoencoder, patch_voxels=edge, batch_size=2, bench=bench),
        "decoding": lambda edge, bench: decoding(config.autoencoder, patch_voxels=edge, batch_size=2, bench=bench),
        "stage 2": lambda edge, bench: diffusion_step(config, patch_voxels=edge, bench=bench, **options),
        "denoising": lambda edge, bench: denoising(config, patch_voxels=edge, batch_size=2, bench=bench, **options),
        "Med-DDPM": lambda edge, bench: voxel_step(config, patch_voxels=edge, bench=bench, **options),
        "stage 3": lambda edge, bench: segmentation_step(
            config.segmentation, patch_voxels=edge, num_labels=4, bench=bench
        ),
        "windows": lambda edge, bench: segmenting(
            config.segmentation, patch_voxels=edge, num_labels=4, batch_size=2, bench=bench
        ),
    }


@pytest.mark.parametrize(
    "name",
    [
        "stage 1",
        "stage 1, adversarial",
        "encoding",
        "decoding",
        "stage 2",
        "denoising",
        "Med-DDPM",
        "stage 3",
        "windows",
    ],
)
def test_every_pass_of_the_stages_runs_and_is_counted(tiny_config: Config, name: str) -> None:
    voxels = MedDDPMConfig(patch_voxels=24, channels=(8, 8), attention_levels=(1,), precision="float32")
    build = passes(tiny_config.model_copy(update={"med_ddpm": voxels}))[name]
    assert callable(build)
    build(24, Bench(CPU, is_counted=False))()
    count = count_pass(build, 24, CPU)
    assert count.flops > 0
    assert count.peak_bytes > 0
    if name in ("encoding", "decoding"):  # convolutions alone: eight times the voxels, eight times the operations
        assert count_pass(build, 48, CPU).flops == 8 * count.flops


Training = Callable[[Path, int], object]
"""Trains in a folder for so many steps."""


@pytest.fixture
def trainings(
    tiny_cases: list[CachedCase],
    tiny_data: Dataset,
    tiny_config: Config,
    tiny_autoencoder_run: Path,
    is_checkpointed: bool,
) -> dict[str, tuple[Training, measure.PassOf, int]]:
    """Every stage's training, the pass it is estimated by, and the patch of both."""
    hardware = HardwareConfig(activation_checkpointing="on" if is_checkpointed else "off", compile="off")
    shared = {"spec": tiny_data.spec, "seed": 7, "device": "cpu", "hardware": hardware}
    learning = {**shared, "train_cases": tiny_cases[:3]}
    labels = tiny_data.labels
    first = tiny_config.autoencoder.model_copy(update={"num_epochs": 1, "adversarial_start_epoch": 0})
    first = first.model_copy(update={"quantizer_start_epoch": 0, "perceptual_weight": 0.0})
    voxels = MedDDPMConfig(patch_voxels=16, channels=(8, 16), attention_levels=(1,), precision="float32")
    third = SegmentationConfig(network="dynunet", patch_voxels=32, batch_size=2, num_epochs=1, precision="float32")
    third = third.model_copy(update={"channels": (4, 4, 8)})
    coarse = tiny_data.spec.model_copy(update={"spacing_mm": (1.0, 1.0, 5.0)})

    def stage_1(out: Path, num_steps: int) -> object:
        config = first.model_copy(update={"steps_per_epoch": num_steps})
        return trained(train_autoencoder, labels=labels, validation_cases=[], config=config, out=out, **learning)

    def stage_2(out: Path, num_steps: int) -> object:
        config = tiny_config.diffusion.model_copy(update={"num_steps": num_steps})
        of = {"labels": labels, "autoencoder_run": tiny_autoencoder_run}
        return trained(train_diffusion, config=config, out=out, **of, **learning)

    def med_ddpm(out: Path, num_steps: int) -> object:
        config = voxels.model_copy(update={"num_steps": num_steps})
        return trained(train_med_ddpm, labels=labels, config=config, out=out, **learning)

    def stage_3(out: Path, num_steps: int) -> object:
        config = third.model_copy(update={"steps_per_epoch": num_steps})
        cases = {"real_cases": tiny_cases[:2], "validation_cases": tiny_cases[2:3], "synthetic_cases": []}
        of = {**shared, **cases, "spec": coarse, "test_cases": [], "labels": labels}
        return trained(train_segmentation, config=config, out=out, **of)

    found = passes(tiny_config.model_copy(update={"autoencoder": first, "med_ddpm": voxels}))
    segmenting_step = partial(segmentation_step, third, num_labels=len(labels), spacing_mm=coarse.spacing_mm)
    return {
        "stage 1": (stage_1, found["stage 1, adversarial"], first.patch_voxels),
        "stage 2": (stage_2, found["stage 2"], tiny_config.diffusion.patch_voxels),
        "Med-DDPM": (med_ddpm, found["Med-DDPM"], voxels.patch_voxels),
        "stage 3": (stage_3, lambda edge, bench: segmenting_step(patch_voxels=edge, bench=bench), third.patch_voxels),
    }


@pytest.mark.parametrize("is_checkpointed", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["stage 1", "stage 2", "Med-DDPM", "stage 3"])
def test_what_is_estimated_is_what_a_step_of_the_training_computes(
    trainings: dict[str, tuple[Training, measure.PassOf, int]], name: str, is_checkpointed: bool, tmp_path: Path
) -> None:
    """Three steps more than two: what comes before and after the steps falls out."""
    train, build, patch_voxels = trainings[name]
    flops = []
    for num_steps in (2, 3):
        with FlopCounterMode(display=False) as counter:
            train(tmp_path / str(num_steps), num_steps)
        flops.append(counter.get_total_flops())
    expected = count_pass(build, patch_voxels, CPU, is_checkpointed=is_checkpointed).flops
    # with one thread torch convolves otherwise, and computes a little more again
    assert flops[1] - flops[0] == pytest.approx(expected, rel=1e-3 if is_checkpointed else 0)
