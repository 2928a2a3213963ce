"""Devices and precisions are resolved once and by name."""

import pytest
import torch
from torch import nn

from promptlesion.training.device import DeviceError, autocast, place, resolve_device, resolve_precision


def test_auto_gives_a_device_of_this_machine() -> None:
    assert torch.ones(2, device=resolve_device("auto")).sum().item() == 2


def test_cpu_is_cpu() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:93", "cpu:x", ""])
def test_what_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device: expected auto, cpu, or an accelerator.*found '{name}'"):
        resolve_device(name)


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision(cpu, "float32") is torch.float32
    assert resolve_precision(cpu, "bfloat16") is torch.bfloat16
    assert resolve_precision(cpu, "auto") in (torch.float32, torch.bfloat16)


def test_autocast_casts_only_where_asked() -> None:
    cpu = torch.device("cpu")
    layer, values = nn.Linear(3, 2), torch.ones(4, 3)
    with autocast(cpu, "float32"):
        assert layer(values).dtype is torch.float32
    with autocast(cpu, "bfloat16"):
        assert layer(values).dtype is torch.bfloat16


def test_placing_changes_memory_order_and_no_number() -> None:
    network = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv3d(4, 2, 1))
    values = torch.randn(2, 3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    before = network(values)
    weight = network[0].weight.detach().clone()
    placed = place(network, torch.device("cpu"))
    assert placed is network
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(placed[0].weight, weight)
    torch.testing.assert_close(placed(values), before)
