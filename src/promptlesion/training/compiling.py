"""Networks built by torch.compile where that can be had, and as they are where not."""

import logging
from collections.abc import Callable
from subprocess import SubprocessError

import torch
from torch import nn

from promptlesion.training.hardware import Choice

logger = logging.getLogger(__name__)


def compile_network(network: nn.Module, *, choice: Choice, device: torch.device, trial: Callable[[], object]) -> bool:
    """Let torch.compile build a network in place, and return whether it did; a failure is said and undone.

    Neither the names nor the values of the weights change.

    Args:
        network: called as a module; what calls its methods does not notice.
        choice: `auto` is a CUDA device alone: elsewhere compiling takes longer than it saves.
        device: where the network is.
        trial: one pass as there will be, backward pass included where there is one; here the compiler works, and fails.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False
    network.compile(dynamic=False)
    try:
        trial()
    except (RuntimeError, OSError, ImportError, SubprocessError) as error:
        network._compiled_call_impl = None
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        logger.warning("torch.compile cannot build the %s (%s); it runs as it is", type(network).__name__, reason)
        return False
    return True
