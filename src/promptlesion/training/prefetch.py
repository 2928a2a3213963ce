"""Batches drawn ahead by threads, so that the network need not wait for them; each depends on its step alone."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Barrier
from typing import TypeVar

import torch

Batch = TypeVar("Batch")


def prefetched(draw: Callable[[int], Batch], steps: range, *, num_batches: int) -> Iterator[Batch]:
    """Yield `draw(step)` of every step in order, with up to `num_batches` more drawn or being drawn.

    NumPy and torch let go of the interpreter's lock wherever it takes long, hence threads; there are fewer than cores.
    An error in `draw` is raised where its batch is due; with `num_batches` of 0 each is drawn then.
    """
    if num_batches == 0:
        yield from map(draw, steps)
        return
    num_threads = min(num_batches, max(1, (os.cpu_count() or 1) - 1))
    settled = Barrier(num_threads + 1)
    pool = ThreadPoolExecutor(num_threads, "prefetch", initializer=_settle, initargs=(settled,))
    num_torch_threads = torch.get_num_threads()
    remaining = iter(steps)
    due: deque[Future[Batch]] = deque()
    try:
        due.extend(pool.submit(draw, step) for step in islice(remaining, num_batches))
        for _ in range(num_threads - len(due)):  # a thread starts with its first task
            pool.submit(_nothing)
        settled.wait()
        torch.set_num_threads(num_torch_threads)
        while due:
            batch = due.popleft().result()
            due.extend(pool.submit(draw, step) for step in islice(remaining, 1))
            yield batch
    finally:
        settled.abort()  # whoever was interrupted while the threads start must not wait for them for ever
        pool.shutdown(wait=True, cancel_futures=True)


def _settle(settled: Barrier) -> None:
    """Let torch compute with one thread in this thread: it would start a team of as many as the network has.

    The number is a thread's own once torch has settled it there, but what is set is also what later threads begin with.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    settled.wait()


def _nothing() -> None:
    """Take up a thread."""
