"""Seconds, memory and operations of several forms of one piece of work, taken in turns on the same machine."""

import ctypes
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]
_CLEAR_REFS = Path("/proc/self/clear_refs")
_MOST = 200


@dataclass(frozen=True)
class Timing:
    """Of one form of a piece of work."""

    seconds: float
    """Median of the repeats."""
    fastest: float
    slowest: float
    repeats: int
    flops: float | None
    """Counted; None where nothing that multiplies was seen."""
    extra_mib: float | None
    """Most memory held beyond what was there before; None where the system cannot tell."""

    @property
    def flop_rate(self) -> float | None:
        """Operations a second in the fastest repeat, the one that other processes disturbed least."""
        return self.flops / self.fastest if self.flops else None


def take_turns(forms: Mapping[str, Work], *, device: torch.device, seconds: float) -> dict[str, Timing]:
    """Run every form once to warm up and be counted, then all of them in turns: a busy minute slows all alike.

    Args:
        forms: the same work done in different ways, by name.
        device: waited for after every run.
        seconds: rounds begin until that much is spent on them; four at least, two of what takes 2 s, one of what
            takes 5 s and was warmed up by the run that was counted.
    """
    flops, memory = {}, {}
    longest, (clock, _) = 0.0, clock_of(device)
    for name, run in forms.items():
        started = clock()
        flops[name], memory[name] = _counted(run, device)
        took = clock() - started
        if _fewest(took) > 2:
            memory[name] = extra_mib(run, device)  # the first run also holds what later ones find there
        longest = max(longest, took)
    taken: dict[str, list[float]] = {name: [] for name in forms}
    fewest, spent, rounds = _fewest(longest), 0.0, 0
    while rounds < fewest or (spent < seconds and rounds < _MOST):
        for name, run in forms.items():
            taken[name].append(timed(run, device))
            spent += taken[name][-1]
        rounds += 1
    return {
        name: Timing(
            seconds=median(taken[name]),
            fastest=min(taken[name]),
            slowest=max(taken[name]),
            repeats=rounds,
            flops=flops[name],
            extra_mib=memory[name],
        )
        for name in forms
    }


def _fewest(seconds: float) -> int:
    if seconds > 5:
        return 1
    return 2 if seconds > 2 else 4


def clock_of(device: torch.device) -> tuple[Callable[[], float], str]:
    """Return the clock that is read, and its name.

    One thread of a processor takes as long as the processor works for it, however busy the machine is otherwise.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "processor time"
    return time.perf_counter, "wall clock"


def timed(run: Work, device: torch.device) -> float:
    """Return the seconds of one run."""
    clock, _ = clock_of(device)
    wait(device)
    started = clock()
    run()
    wait(device)
    return clock() - started


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _counted(run: Work, device: torch.device) -> tuple[float | None, float | None]:
    counter = FlopCounterMode(display=False, custom_mapping=_own_operations())

    def count() -> None:
        with counter:
            run()

    memory = extra_mib(count, device)
    return float(counter.get_total_flops()) or None, memory


def _own_operations() -> dict[object, Callable[..., int]]:
    """Return what torch's counter leaves out: attention on a CPU, and oneDNN's convolution called by its own name."""
    aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
    found: dict[object, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        aten.mkldnn_convolution: _convolution,
    }
    if hasattr(mkldnn, "_convolution_pointwise"):
        found[mkldnn._convolution_pointwise] = _convolution
    return found


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    batch, heads, length, channels = query
    return 2 * batch * heads * length * key[2] * (channels + value[3])


def _attention_backward(gradient: Sequence[int], query: Sequence[int], *rest: Sequence[int], **_: object) -> int:
    return 5 * _attention(query, rest[0], rest[1]) // 2


def _convolution(
    _: Sequence[int], weight: Sequence[int], *__: object, out_shape: Sequence[int] | None = None, **___: object
) -> int:
    assert out_shape is not None
    return 2 * math.prod(weight[1:]) * math.prod(out_shape)


def extra_mib(run: Work, device: torch.device) -> float | None:
    """Run once and return the most memory it held beyond what was held before; None where that cannot be told."""
    gc.collect()
    if device.type == "cuda":
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        wait(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu" or not _CLEAR_REFS.is_file():
        run()
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back, so that it counts when it is taken again
    _CLEAR_REFS.write_text("5", encoding="ascii")  # the peak is forgotten
    before = memory_kib("VmRSS")
    run()
    return max(0.0, (memory_kib("VmHWM") - before) / 2**10)


def memory_kib(key: str) -> int:
    """Return a line of this process's status: VmRSS, what it holds; VmHWM, the most it held."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = Path("/proc/meminfo")
    if not found.is_file():
        return 4 * 2**30
    lines = found.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) * 2**10
