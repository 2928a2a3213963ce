"""Networks that compute as `[hardware]` asks: built by torch.compile where that can be had, with less memory held."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from subprocess import SubprocessError

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from promptlesion.training.hardware import Choice, HardwareConfig

logger = logging.getLogger(__name__)


def ready_to_train(
    network: nn.Module,
    *,
    hardware: HardwareConfig,
    device: torch.device,
    blocks: tuple[type[nn.Module], ...],
    loss: Callable[[], Tensor],
) -> bool:
    """Let a network train as asked for, in place, and return whether torch.compile built it."""
    if hardware.activation_checkpointing == "on":
        checkpoint_activations(network, blocks=blocks)
    weights = list(network.parameters())
    return compile_network(
        network, choice=hardware.compile, device=device, trial=lambda: torch.autograd.grad(loss(), weights)
    )


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


def checkpoint_activations(network: nn.Module, *, blocks: tuple[type[nn.Module], ...]) -> int:
    """Let every block of these classes keep its inputs alone, and compute the rest again in the backward pass.

    Of nested blocks it is the outermost; returned is how many there are.
    The gradients stay the same bit for bit where the blocks draw nothing at random. Neither the names nor the values
    of the weights change. Copy the network before, not after: a copy would compute with the weights of the first.
    """
    found = list(_outermost(network, blocks))
    for module in found:
        module.forward = partial(_checkpointed, module.forward)
    return len(found)


def _outermost(network: nn.Module, blocks: tuple[type[nn.Module], ...]) -> Iterator[nn.Module]:
    for part in network.children():
        if isinstance(part, blocks):
            yield part
        else:
            yield from _outermost(part, blocks)


def _checkpointed(forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    result: Tensor = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
    return result
