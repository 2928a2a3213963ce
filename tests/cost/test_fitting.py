"""Activations are computed again where a step would not fit, and only there."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from promptlesion.config import Config
from promptlesion.cost import fitting
from promptlesion.cost.fitting import fitted_config, is_checkpointed
from promptlesion.cost.machine import Machine, this_machine
from promptlesion.cost.measure import count_pass
from promptlesion.cost.passes import Bench, Pass, segmentation_step
from promptlesion.data.dataset import Dataset
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.hardware import HardwareConfig


def test_auto_compares_with_the_memory_there_is(tiny_data: Dataset) -> None:
    machine = replace(this_machine("cpu", tiny_data.root), device_bytes=1000, resident_bytes=300)
    assert is_checkpointed("on", 0, machine)
    assert not is_checkpointed("off", 10**9, machine)
    assert not is_checkpointed("auto", 700, machine)
    assert is_checkpointed("auto", 701, machine)


@pytest.mark.parametrize("training", ["autoencoder", "promptlesion", "difftumor", "med-ddpm", "segmentation"])
def test_every_training_that_has_a_network_is_decided(
    training: str,
    tiny_config: Config,
    tiny_data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = tiny_config.model_copy(
        update={
            "difftumor": tiny_config.difftumor.model_copy(
                update={"patch_voxels": 24, "channels": (8, 8), "attention_levels": (1,)}
            ),
            "med_ddpm": tiny_config.med_ddpm.model_copy(
                update={"patch_voxels": 8, "channels": (8, 8), "attention_levels": (1,)}
            ),
        }
    )
    assert (
        fitted_config(small, training, tiny_data, out=Path("none"), device="cpu").hardware.activation_checkpointing
        == "off"
    )

    def tiny_machine(device: str, folder: object) -> Machine:
        return replace(machine, device_bytes=machine.resident_bytes + 1000)

    machine = this_machine("cpu", tiny_data.root)
    monkeypatch.setattr(fitting, "this_machine", tiny_machine)
    with caplog.at_level(logging.WARNING):
        spared = fitted_config(small, training, tiny_data, out=Path("none"), device="cpu")
    assert spared.hardware.activation_checkpointing == "on"
    assert f"{training}: a step would hold" in caplog.text
    assert spared.model_copy(update={"hardware": HardwareConfig()}) == small


def test_what_trains_no_network_or_was_decided_stays(tiny_config: Config, tiny_data: Dataset) -> None:
    assert fitted_config(tiny_config, "copy-paste", tiny_data, out=Path("none"), device="cpu") is tiny_config
    decided = tiny_config.model_copy(update={"hardware": HardwareConfig(activation_checkpointing="on")})
    assert fitted_config(decided, "autoencoder", tiny_data, out=Path("none"), device="cpu") is decided


def test_a_checkpointed_step_holds_less_and_computes_more() -> None:
    config = SegmentationConfig(patch_voxels=32, channels=(8, 8, 8, 8), residual_units=2, batch_size=4)

    def step(edge: int, bench: Bench) -> Pass:
        return segmentation_step(config, patch_voxels=edge, num_labels=3, bench=bench)

    device = torch.device("cpu")
    plain, spared = (count_pass(step, 32, device, is_checkpointed=flag) for flag in (False, True))
    assert spared.peak_bytes < 0.85 * plain.peak_bytes
    assert 1.1 < spared.flops / plain.flops < 1.5
