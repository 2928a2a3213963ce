"""Exponential moving average of a network's weights."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def averaged_copy(network: Network) -> Network:
    """Return a frozen copy that `update_average` moves towards the network."""
    average = copy.deepcopy(network).eval()
    return average.requires_grad_(requires_grad=False)


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
