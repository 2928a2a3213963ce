"""The backward pass, node by node in Python: torch's own engine asks a CPU build for the streams of its devices."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node


def gradients_of(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a scalar by each leaf; none for those it does not depend on."""
    assert loss.grad_fn is not None and loss.numel() == 1
    found: dict[int, Tensor] = {}
    waiting: dict[Node, list[Tensor | None]] = {loss.grad_fn: [torch.ones_like(loss)]}
    with torch.no_grad():
        for node in _last_first(loss.grad_fn):
            gradients = waiting.pop(node)
            if hasattr(node, "variable"):
                found[id(node.variable)] = _sum([found.get(id(node.variable)), *gradients])
                continue
            given = node(*gradients)
            for (earlier, index), gradient in zip(node.next_functions, _as_tuple(given), strict=True):
                if earlier is not None:
                    like = earlier._input_metadata
                    sums = waiting.setdefault(earlier, [None] * len(like))
                    sums[index] = _sum([sums[index], _fitted(gradient, like[index])])
    return [found.get(id(weight)) for weight in weights]


def backward(
    loss: Tensor,
    gradient: None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Iterable[Tensor] = (),
) -> None:
    """Do what `Tensor.backward` does for the weights that are named."""
    weights = list(inputs)
    assert weights and gradient is None and not create_graph
    for weight, own in zip(weights, gradients_of(loss, weights), strict=True):
        if own is not None:
            weight.grad = _sum([weight.grad, own])


def grad(loss: Tensor, weights: Tensor | Sequence[Tensor], *, retain_graph: bool = False) -> tuple[Tensor | None, ...]:
    """Do what `torch.autograd.grad` does for leaves."""
    return tuple(gradients_of(loss, [weights] if isinstance(weights, Tensor) else weights))


def _last_first(root: Node) -> list[Node]:
    """Return the nodes of the graph, each before those that gave it its input."""
    done: set[Node] = set()
    order: list[Node] = []
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, is_left = stack.pop()
        if is_left:
            order.append(node)
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack += [(earlier, False) for earlier, _ in node.next_functions if earlier is not None]
    return order[::-1]


def _fitted(gradient: Tensor | None, like: Any) -> Tensor | None:
    """Return a gradient in the shape and number type of what it is of, as the engine does."""
    if gradient is None:
        return None
    if gradient.dim() and gradient.device.type != like.device.type:
        raise RuntimeError(f"expected a gradient on {like.device}; found one on {gradient.device}")
    return gradient.sum_to_size(like.shape).to(like.dtype)


def _sum(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    total = known[0] if known else None
    for part in known[1:]:
        total = total + part
    return total


def _as_tuple(given: Tensor | tuple[Tensor | None, ...] | None) -> tuple[Tensor | None, ...]:
    return given if isinstance(given, tuple) else (given,)
