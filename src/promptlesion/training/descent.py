"""One optimiser step, the same for every stage and for any number of processes, and the average of what it leaves."""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from promptlesion.training.launch import average_gradients
from promptlesion.training.optimisation import Decay

Network = TypeVar("Network", bound=nn.Module)


def build_adam(network: nn.Module, *, learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Return Adam for a network; on a GPU the fused one, which updates all weights in one kernel."""
    weights = list(network.parameters())
    is_on_gpu = any(weight.device.type == "cuda" for weight in weights)
    return Adam(weights, lr=learning_rate, betas=betas, fused=True if is_on_gpu else None)


def set_learning_rate(optimizer: Optimizer, *, start: float, step: int, num_steps: int, decay: Decay) -> None:
    """Set the rate of one step: constant, or start * (1 + cos(pi * step / num_steps)) / 2.

    The latter is that of Loshchilov and Hutter 2017, without restarts. A function of the step alone, so that
    a resumed run goes on as if it had never stopped.
    """
    rate = start if decay == "none" else start * 0.5 * (1 + math.cos(math.pi * step / num_steps))
    for group in optimizer.param_groups:
        group["lr"] = rate


def descend(loss: Tensor, network: nn.Module, optimizer: Optimizer, *, max_gradient_norm: float) -> None:
    """Take one step for the network alone, whatever else the loss went through.

    Gradients are averaged over the processes first; a norm above `max_gradient_norm` is scaled down to it.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=[p for p in network.parameters() if p.requires_grad])  # type: ignore[no-untyped-call]
    average_gradients(network)
    nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
    optimizer.step()


def averaged_copy(network: Network) -> Network:
    """Return a frozen copy that `update_average` moves towards the network."""
    return frozen(copy.deepcopy(network))


def frozen(network: Network) -> Network:
    """Put a network into evaluation mode, its weights to be trained no more, and return it."""
    return network.eval().requires_grad_(requires_grad=False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, *, decay: float, step: int) -> None:
    """Move the average towards the network: average = d * average + (1 - d) * network.

    The decay d is min(decay, (1 + step) / (10 + step)), so that the random start is forgotten early; buffers
    are copied.
    """
    current_decay = min(decay, (1 + step) / (10 + step))
    averages: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(averages, list(network.parameters()), 1.0 - current_decay)
    for buffer, current in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(current)
