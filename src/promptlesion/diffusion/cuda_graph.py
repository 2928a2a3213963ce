"""The same denoiser step again and again, recorded as a CUDA graph: replayed, no Python and no launching is left."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from promptlesion.diffusion.bound_network import BoundNetwork
from promptlesion.training.hardware import Choice

logger = logging.getLogger(__name__)

Predict = Callable[[Tensor, int], Tensor]
_LEVEL = 0


@dataclass(frozen=True)
class _Recording:
    """A graph, what it reads and what it writes; all stays where it is in the device's memory."""

    graph: torch.cuda.CUDAGraph
    noisy: Tensor
    bound: BoundNetwork
    predicted: Tensor


class StepRecorder:
    """Records the step of one network, whose weights no longer change, once for every shape of a batch that recurs.

    All recordings compute with the network itself, so none keeps a copy of its weights. A device that cannot is told
    of once; then the steps are computed as they are.
    """

    def __init__(self, *, choice: Choice, device: torch.device) -> None:
        """Record nothing yet; `auto` records on a CUDA device alone."""
        self._recordings: dict[tuple[object, ...], _Recording | None] = {}
        self._pool: tuple[int, int] | None = None
        self._is_on = choice == "on" or (choice == "auto" and device.type == "cuda")

    def __call__(self, bound: BoundNetwork, noisy: Float[Tensor, "batch channel x y z"]) -> Predict:
        """Return what predicts as the bound network does, for noisy latents like these."""
        if not self._is_on:
            return bound
        prompts = None if bound.embedding is None else (bound.embedding.shape, bound.embedding.dtype)
        key = (noisy.shape, noisy.dtype, bound.known_share.shape, bound.known_share.dtype, prompts)
        try:
            if key not in self._recordings:
                _check_device(noisy.device)
                self._recordings[key] = None  # a shape asked for once, say the last of a cohort, is not worth it
                return bound
            recording = self._recordings[key] = self._recordings[key] or self._record(bound, noisy)
        except RuntimeError as error:
            self._is_on = False
            reason = str(error).strip().splitlines()[0]
            logger.warning("no CUDA graph of the denoiser's step can be recorded (%s); it runs as it is", reason)
            return bound
        recording.bound.known_share.copy_(bound.known_share)
        if recording.bound.embedding is not None and bound.embedding is not None:
            recording.bound.embedding.copy_(bound.embedding)

        def predict(noisy: Tensor, level: int) -> Tensor:
            recording.noisy.copy_(noisy)
            recording.bound.modulations[_LEVEL].copy_(bound.modulations[level])
            recording.graph.replay()
            return recording.predicted.clone()

        return predict

    @torch.no_grad()
    def _record(self, bound: BoundNetwork, noisy: Tensor) -> _Recording:
        """Run a step on copies of what changes, twice on another stream to wake the libraries, then record it."""
        own_noisy = noisy.clone()
        own = replace(
            bound,
            known_share=bound.known_share.clone(),
            modulations={_LEVEL: next(iter(bound.modulations.values())).clone()},
            embedding=None if bound.embedding is None else bound.embedding.clone(),
        )
        # torch.cuda.graph would capture a stream of the current device, where nothing of this one is seen
        with torch.cuda.device(noisy.device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    own(own_noisy, _LEVEL)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # one pool for all shapes: what a graph leaves in it is copied out before the next one runs
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):  # type: ignore[arg-type]
                predicted = own(own_noisy, _LEVEL)
            self._pool = graph.pool()
        return _Recording(graph, own_noisy, own, predicted)


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise RuntimeError(f"found the device {device.type}")
