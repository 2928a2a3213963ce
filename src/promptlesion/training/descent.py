"""One optimiser step, the same for every stage and for any number of processes."""

from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from promptlesion.training.launch import average_gradients


def descend(loss: Tensor, network: nn.Module, optimizer: Optimizer, *, max_gradient_norm: float) -> None:
    """Take one step for the network alone, whatever else the loss went through.

    Gradients are averaged over the processes first; a norm above `max_gradient_norm` is scaled down to it.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=[p for p in network.parameters() if p.requires_grad])  # type: ignore[no-untyped-call]
    average_gradients(network)
    nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)
    optimizer.step()


def build_adam(network: nn.Module, *, learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Return Adam for a network; on a GPU the fused one, which updates all weights in one kernel."""
    weights = list(network.parameters())
    is_on_gpu = any(weight.device.type == "cuda" for weight in weights)
    return Adam(weights, lr=learning_rate, betas=betas, fused=True if is_on_gpu else None)
