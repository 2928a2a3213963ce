"""Which device and which precision a stage computes with."""

import logging
import os
from functools import cache
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from promptlesion.training.onednn import prefer_onednn
from promptlesion.training.optimisation import Precision

logger = logging.getLogger(__name__)
_ISAS_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""To which oneDNN's variable ONEDNN_MAX_CPU_ISA may hold a newer CPU down."""
Network = TypeVar("Network", bound=nn.Module)


class DeviceError(ValueError):
    """The asked-for device is not on this machine."""


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device, preferring an accelerator for `auto`.

    What is a device already stays.

    Raises:
        DeviceError: the name is no device, or this machine does not have it.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"device: expected auto, cpu, or an accelerator of this machine; found {name!r} ({reason})"
        ) from error
    return device


def process_device(name: str) -> str:
    """Return the device of this process: those that torchrun or srun started take turns on the machine's GPUs."""
    number = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID") if "SLURM_STEP_ID" in os.environ else None)
    if number is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(number) % torch.cuda.device_count()}"


def worker_device(device: torch.device, index: int) -> str:
    """Return the device of a worker; those on GPUs take turns unless one GPU was asked for by number."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{index % torch.cuda.device_count()}"
    return str(device)


def resolve_precision(device: torch.device, precision: Precision) -> torch.dtype:
    """Choose bfloat16, unless float32 is asked for, where the hardware multiplies it natively; float32 elsewhere.

    Asked for where the hardware has none, it is computed in float32 all the same, and that is said once.
    """
    if precision == "float32":
        return torch.float32
    is_asked_for = precision == "bfloat16"
    if _has_native_bfloat16(device.type) or (is_asked_for and device.type == "mps"):
        return torch.bfloat16
    if is_asked_for:
        _say_float32(device.type)
    return torch.float32


def _has_native_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper() in _ISAS_WITHOUT_BFLOAT16:
        return False
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@cache
def _say_float32(device_type: str) -> None:
    logger.warning("precision bfloat16: this %s has no arithmetic for it; float32 is used instead", device_type.upper())


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the autocast context for the device; disabled where it computes in float32."""
    dtype = resolve_precision(device, precision)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16)


def place(network: Network, device: torch.device) -> Network:
    """Move a network to the device, its 3-D convolutions in channels-last order: up to twice as fast.

    On a CPU none of them takes PyTorch's slow path for small float32 maps of batch 1.
    """
    moved: Network = network.to(device)
    for module in moved.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if device.type == "cpu":
        prefer_onednn(moved)
    return moved


def send(values: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """Copy to the device; to a GPU from pinned memory, so that nothing waits for the copy but what computes with it."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
