"""What one pass of a network takes: operations and memory counted without data, seconds measured on this machine."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from promptlesion.cost.passes import Bench, Pass

PassOf = Callable[[int, Bench], Pass]
"""Builds a pass for patches of so many voxels an edge."""
_NUM_UPDATED = 2**22
_LONGEST_MEASURED_S = 1.5
_MEASURED_S = 0.3
_FEWEST_MEASURED = 3


@dataclass(frozen=True)
class Count:
    """Of one pass, exact for any machine."""

    flops: float
    peak_bytes: int
    """Most that is held at once: weights, gradients, activations and what is computed from them."""


@dataclass(frozen=True)
class PassCost:
    """Of one pass on this machine."""

    flops: float
    peak_bytes: int
    seconds: float
    updating_seconds: float
    """Of these, what the optimiser takes."""
    measured_patch_voxels: int
    """Edge of the patches that were timed; where it is less than the stage's, the time was scaled by the operations."""
    is_checkpointed: bool = False
    """Whether activations are computed again; operations, memory and time are those of that."""

    def seconds_of(self, flops: float) -> float:
        """Return what as many operations take at the same speed, without the optimiser."""
        return flops * max(self.seconds - self.updating_seconds, 0.1 * self.seconds) / self.flops


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows what tensors hold, storage by storage, as they come and go."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live = 0
        self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._follow(leaf.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(storage)
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self._live -= size


def count_pass(pass_of: PassOf, patch_voxels: int, device: torch.device, *, is_checkpointed: bool = False) -> Count:
    """Run a pass on tensors that have shapes and no data, and count its operations and what it holds."""
    with FakeTensorMode(allow_non_fake_inputs=True), device, _LiveBytes() as live:
        run = pass_of(patch_voxels, Bench(device, is_counted=True, is_checkpointed=is_checkpointed))
        with FlopCounterMode(display=False) as counter:
            run()
    return Count(float(counter.get_total_flops()), live.peak)


def measure_pass(pass_of: PassOf, patch_voxels: int, device: torch.device) -> float:
    """Return the seconds of a pass: the fastest of three or more after a first one that does not count.

    Another process that is busy for a moment slows several threads many times over: the fastest is least so.
    """
    run = pass_of(patch_voxels, Bench(device, is_counted=False))
    run()
    _wait(device)
    seconds: list[float] = []
    while len(seconds) < _FEWEST_MEASURED or sum(seconds) < _MEASURED_S:
        started = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def cost_of(
    pass_of: PassOf,
    *,
    patch_voxels: int,
    smallest_patch: int,
    updating_seconds: float,
    device: torch.device,
    free_bytes: int,
) -> PassCost:
    """Count a training step at its full size, and time it on the largest patches that take about a second.

    Patches of `smallest_patch` are timed first, then twice as large ones as long as they promise to be quick; nothing
    that would hold more than half of `free_bytes` is run. Whatever the patch, the optimiser takes `updating_seconds`.
    """
    count = count_pass(pass_of, patch_voxels, device)
    edge = min(patch_voxels, smallest_patch)
    while True:
        seconds, measured = measure_pass(pass_of, edge, device), edge
        edge = min(patch_voxels, 2 * edge)
        is_slow = seconds * (edge / measured) ** 3 > _LONGEST_MEASURED_S
        if measured == patch_voxels or is_slow or count.peak_bytes * (edge / patch_voxels) ** 3 > free_bytes / 2:
            break
    if measured < patch_voxels:
        scale = count.flops / count_pass(pass_of, measured, device).flops
        fixed = min(updating_seconds, 0.9 * seconds)
        seconds = fixed + (seconds - fixed) * scale
    return PassCost(count.flops, count.peak_bytes, seconds, updating_seconds, measured)


def updating_seconds_a_parameter(device: torch.device) -> float:
    """Measure what Adam, the clipping of gradients and a moving average take for each parameter."""
    weight = torch.nn.Parameter(torch.zeros(_NUM_UPDATED, device=device))
    weight.grad = torch.full_like(weight, 1e-3)
    average = torch.zeros_like(weight)
    optimizer = torch.optim.Adam([weight])
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        average.lerp_(weight.detach(), 0.1)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / _NUM_UPDATED


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
