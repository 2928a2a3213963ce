"""Devices and precisions are resolved once and by name."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from promptlesion.training import device
from promptlesion.training.device import (
    DeviceError,
    autocast,
    place,
    process_device,
    resolve_device,
    resolve_precision,
    worker_device,
)


def test_auto_gives_a_device_of_this_machine() -> None:
    assert torch.ones(2, device=resolve_device("auto")).sum().item() == 2


def test_cpu_is_cpu() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:93", "cpu:x", ""])
def test_what_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device: expected auto, cpu, or an accelerator.*found '{name}'"):
        resolve_device(name)


@pytest.fixture
def cpu_with(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.device]:
    """Let this CPU be one with bfloat16 arithmetic or without."""

    def pretend(*, bfloat16: bool, isa: str | None = None) -> torch.device:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": bfloat16})
        # the process's own environment stays: oneDNN reads it when it first computes, for good
        monkeypatch.setattr(device, "os", SimpleNamespace(environ={"ONEDNN_MAX_CPU_ISA": isa} if isa else {}))
        return torch.device("cpu")

    device._say_float32.cache_clear()
    return pretend


def test_precision_is_what_was_asked_for_where_the_cpu_has_it(cpu_with: Callable[..., torch.device]) -> None:
    cpu = cpu_with(bfloat16=True)
    assert resolve_precision(cpu, "float32") is torch.float32
    assert resolve_precision(cpu, "bfloat16") is resolve_precision(cpu, "auto") is torch.bfloat16
    layer, values = nn.Linear(3, 2), torch.ones(4, 3)
    with autocast(cpu, "float32"):
        assert layer(values).dtype is torch.float32
    with autocast(cpu, "bfloat16"):
        assert layer(values).dtype is torch.bfloat16


@pytest.mark.parametrize(("bfloat16", "isa"), [(False, None), (True, "AVX2"), (True, "avx512_core")])
def test_bfloat16_that_a_cpu_lacks_is_computed_in_float32_and_that_is_said_once(
    cpu_with: Callable[..., torch.device], caplog: pytest.LogCaptureFixture, bfloat16: bool, isa: str | None
) -> None:
    cpu = cpu_with(bfloat16=bfloat16, isa=isa)
    assert resolve_precision(cpu, "auto") is torch.float32
    assert not caplog.messages
    for _ in range(2):
        assert resolve_precision(cpu, "bfloat16") is torch.float32
    assert caplog.messages == ["precision bfloat16: this CPU has no arithmetic for it; float32 is used instead"]
    layer = nn.Linear(3, 2)
    with autocast(cpu, "bfloat16"):
        assert layer(torch.ones(4, 3)).dtype is torch.float32


def test_bfloat16_stays_where_oneDNN_may_use_it(cpu_with: Callable[..., torch.device]) -> None:  # noqa: N802
    assert resolve_precision(cpu_with(bfloat16=True, isa="AVX512_CORE_AMX"), "auto") is torch.bfloat16


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


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [worker_device(torch.device("cuda"), index) for index in range(4)] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
        "cuda:0",
    ]
    assert worker_device(torch.device("cuda:2"), 0) == "cuda:2"
    assert worker_device(torch.device("cpu"), 5) == "cpu"
    for name in ("LOCAL_RANK", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert process_device("auto") == "auto"
    monkeypatch.setenv("LOCAL_RANK", "4")
    assert [process_device(name) for name in ("auto", "cuda", "cpu", "cuda:2")] == [
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:2",
    ]
