"""Several processes that train one network: which one this is, what its share is, and what all agree on.

torchrun starts them; each takes its share of every batch, and all take the same step. The main one writes what all
read, so that several machines need one folder in common. Without torchrun every function answers for the only
process, and a training loop is written once.

Gradients are averaged here and not by DistributedDataParallel: that lays its buckets out anew after its first step,
so from three processes on a resumed run would round otherwise than an unbroken one.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from promptlesion.training.device import DeviceError, resolve_device

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_TIMEOUT = timedelta(days=1)
"""The others wait that long while the main process prepares a dataset."""


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the processes torchrun started, over NCCL on GPUs and gloo on CPUs; give the device of this one.

    Without torchrun nothing happens, and the device stays what was asked for.

    Raises:
        DeviceError: a device that several processes cannot have each for itself, or that is not there.
    """
    if not all(name in os.environ for name in _TORCHRUN):
        yield device
        return
    own = _own_device(device)
    is_cuda = own.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if is_cuda else "gloo", timeout=_TIMEOUT, device_id=own if is_cuda else None)
    try:
        yield str(own)
    finally:
        dist.destroy_process_group()


def _own_device(name: str) -> torch.device:
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
    device = resolve_device(name)
    if device.type != "cpu":
        raise DeviceError(
            f"device: expected cpu, or cuda without a number, as torchrun gives every process its own; found {name!r}"
        )
    return device


def _is_one_of_several() -> bool:
    return dist.is_available() and dist.is_initialized()


def process_rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_one_of_several() else 0


def num_processes() -> int:
    """Return how many processes there are, on all machines together."""
    return dist.get_world_size() if _is_one_of_several() else 1


def is_main_process() -> bool:
    """Whether this process writes the files and says what there is to say."""
    return process_rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if _is_one_of_several():
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the main process run the block before the others do, who then find its files.

    Where it fails, the others run the block all the same, and say what is wrong rather than that they were left alone.
    """
    if not is_main_process():
        barrier()
    try:
        yield
    finally:
        if is_main_process():
            barrier()


def share_of_batch(batch_size: int) -> range:
    """Return which items of a global batch are this process's.

    Raises:
        ValueError: the processes would have to take unequal shares.
    """
    size, rest = divmod(batch_size, num_processes())
    if rest:
        raise ValueError(f"batch_size: expected a multiple of the {num_processes()} processes; found {batch_size}")
    return range(process_rank() * size, (process_rank() + 1) * size)


def all_reduced_sum(part: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the sum over the processes, bit for bit the same on all of them; no gradient flows through it."""
    part = part.detach()
    if num_processes() == 1:
        return part
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    total = part.to(device, copy=True).contiguous()
    dist.all_reduce(total)
    return total.to(part.device)


def global_sum(part: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the sum over the processes of a part of the loss, with the gradient of this process's part.

    That gradient is taken times the number of processes, since `average_gradients` divides by it: any function of
    such sums is then descended as one process with the whole batch would. A loss that is a plain mean over equal
    shares needs none of this.
    """
    if num_processes() == 1:
        return part
    return all_reduced_sum(part) + num_processes() * (part - part.detach())


def any_process(flag: bool) -> bool:
    """Return whether one of the processes says so; all must ask at the same place."""
    return flag if num_processes() == 1 else bool(all_reduced_sum(torch.tensor(float(flag))) > 0)


def mean_over_processes(report: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of every figure over the processes."""
    if num_processes() == 1:
        return dict(report)
    total = all_reduced_sum(torch.tensor(list(report.values()), dtype=torch.float64))
    return dict(zip(report, (total / num_processes()).tolist(), strict=True))


@torch.no_grad()
def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, all in one message."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if num_processes() == 1 or not gradients:
        return
    total = all_reduced_sum(torch.cat([gradient.flatten() for gradient in gradients])) / num_processes()
    parts = torch.split(total, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
