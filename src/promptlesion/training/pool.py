"""Worker processes on this machine: every item is done once, whatever happens to the process that does it.

A pool has lanes, each with one process at a time, of the standard library's executor: so a killed process takes one
item with it, and the pool knows which.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from promptlesion.training.stopping import Terminated

logger = logging.getLogger(__name__)

_NUM_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_MOST_KILLS = 3
_END_SECONDS, _TERMINATION_SECONDS = 2.0, 25.0
"""For a training in a worker to save: after Ctrl+C somebody waits, and a cluster kills after half a minute."""
_worker_number = 0
_function: Callable[..., object]

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(RuntimeError):
    """The processes at work on an item were killed again and again; the message names the item."""


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """An item that is done, and what came of it."""

    item: Item
    outcome: Result | BaseException

    def result(self) -> Result:
        """Return what the function made of the item, or raise what it raised."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@dataclass
class _Task(Generic[Item, Result]):
    """An item at work."""

    item: Item
    future: "Future[Result]"
    num_kills: int = 0


@dataclass
class _Lane(Generic[Item, Result]):
    """One process at a time, started when there is work."""

    number: int
    function: Callable[[Item], Result]
    num_threads: int
    executor: ProcessPoolExecutor | None = None
    process: BaseProcess | None = None
    task: _Task[Item, Result] | None = None

    def start(self, item: Item) -> "Future[Result]":
        """Give the lane's process an item."""
        if self.executor is not None:
            return self.executor.submit(_call, item)
        before = active_children()
        arguments = (self.number, self.function)
        self.executor = ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin_worker, initargs=arguments)
        future: Future[Result]
        with threads_each(self.num_threads), _ctrl_c_later():
            future = self.executor.submit(_call, item)
            (self.process,) = (process for process in active_children() if process not in before)
        return future

    def end(self) -> int | None:
        """End the process once it has no work left, and return its exit code."""
        code = None
        if self.executor is not None and self.process is not None:
            self.executor.shutdown()
            code = self.process.exitcode
        self.executor = self.process = self.task = None
        return code


class Pool(Generic[Item, Result]):
    """Processes that each do one item at a time, and that end with the block whatever ends it.

    The item of a process that was killed is done again by a new one. Ctrl+C is this process's to act on; theirs, not.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        num_workers: int,
        *,
        num_threads: int = 1,
        is_fresh: bool = False,
        name_of: Callable[[Item], str] = str,
    ) -> None:
        """Start nothing yet.

        Args:
            function: what is done with an item; it must survive pickling, and every process keeps its own copy, so that
                what that has loaded for one item is there for the next.
            num_workers: items at work at a time.
            num_threads: of each process's linear algebra, unless the environment says otherwise.
            is_fresh: whether every item gets a new process.
            name_of: what messages call an item.
        """
        if num_workers < 1:
            raise ValueError(f"expected at least one worker, found {num_workers}")
        self._lanes = [_Lane(number, function, num_threads) for number in range(num_workers)]
        self._is_fresh, self._name_of = is_fresh, name_of

    def __enter__(self) -> "Pool[Item, Result]":
        """Return the pool."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """End all processes, within seconds after Ctrl+C, and drop what they were at work on."""
        lanes = [lane for lane in self._lanes if lane.task is not None or error is not None]
        processes = [lane.process for lane in lanes if lane.process is not None]
        for process in processes:
            process.terminate()
        is_terminated = error is not None and issubclass(error, Terminated)
        deadline = time.monotonic() + (_TERMINATION_SECONDS if is_terminated else _END_SECONDS)
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        for lane in self._lanes:
            lane.end()

    @property
    def num_free(self) -> int:
        """How many more items could be at work now."""
        return sum(lane.task is None for lane in self._lanes)

    @property
    def num_busy(self) -> int:
        """How many items are at work."""
        return len(self._lanes) - self.num_free

    def submit(self, item: Item) -> None:
        """Let a free process do the item.

        Raises:
            ValueError: no process is free.
        """
        lane = next((lane for lane in self._lanes if lane.task is None), None)
        if lane is None:
            raise ValueError(f"expected fewer than {len(self._lanes)} items at work, found as many")
        lane.task = _Task(item, lane.start(item))

    def wait(self, timeout_seconds: float | None = None) -> list[Done[Item, Result]]:
        """Return what is done, waiting for the first of it, and not longer than that; nothing where nothing is."""
        tasks = {lane.task.future: lane for lane in self._lanes if lane.task is not None}
        ready = wait_for(tasks, timeout_seconds, FIRST_COMPLETED).done
        found = [self._taken_from(lane) for future, lane in tasks.items() if future in ready]
        return [done for done in found if done is not None]

    def _taken_from(self, lane: _Lane[Item, Result]) -> Done[Item, Result] | None:
        """Return what a process made of its item and let it be free, or start another one where it was killed."""
        task = lane.task
        assert task is not None
        error = task.future.exception()
        if isinstance(error, BrokenProcessPool):
            code = lane.end()
            killed = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
            task.num_kills += 1
            if task.num_kills < _MOST_KILLS:
                logger.warning("%s: its process %s; it is done again", self._name_of(task.item), killed)
                task.future = lane.start(task.item)
                lane.task = task
                return None
            cause = f"memory ran out, probably: use fewer workers than {len(self._lanes)}, or more memory"
            if code is not None and code > 0:  # started, it imports the script that called this
                cause = 'in a script of your own, such calls stand under `if __name__ == "__main__":`'
            message = f"{self._name_of(task.item)}: its process {killed}, {_MOST_KILLS} times; {cause}"
            return Done(task.item, WorkerError(message))
        lane.task = None
        if self._is_fresh:
            lane.end()
        return Done(task.item, task.future.result() if error is None else error)


def run_in_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    name_of: Callable[[Item], str] = str,
) -> Generator[Result]:
    """Yield what the function makes of each item, as it is done; one worker works in this process, in order.

    Close it (`contextlib.closing`), so that its processes end when something else fails.
    """
    if num_workers < 1:
        raise ValueError(f"expected at least one worker, found {num_workers}")
    if num_workers == 1 or len(items) < 2:
        for item in items:
            yield function(item)
        return
    left = iter(items)
    with Pool(function, min(num_workers, len(items)), name_of=name_of) as pool:
        for _, item in zip(range(pool.num_free), left, strict=False):
            pool.submit(item)
        while pool.num_busy:
            results = [done.result() for done in pool.wait()]
            for _, item in zip(range(pool.num_free), left, strict=False):
                pool.submit(item)
            yield from results


def worker_number() -> int:
    """Return which of a pool's processes this one is, from 0; 0 in any other process."""
    return _worker_number


def is_worker() -> bool:
    """Return whether this process is a pool's, and had better start no more of them."""
    return parent_process() is not None


def _begin_worker(number: int, function: Callable[..., object]) -> None:
    """Make this process a worker: Ctrl+C is not its, and it ends with the one that started it.

    Else it would go on with its work, and wait for ever for more, while the same command runs again beside it.
    """
    global _worker_number, _function
    _worker_number, _function = number, function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def end_with_parent() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(item: Any) -> Any:
    """Let this worker's function do an item."""
    return _function(item)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Let a Ctrl+C of the block take effect at its end, and none reach the processes that start in it.

    Blocked signals stay blocked in them until `_begin_worker`, and in this thread alone: others may take them.
    """
    found: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: found.append(number)) if is_main else None
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if is_main:
            signal.signal(signal.SIGINT, handler)
        if found:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def threads_each(num_threads: int) -> Iterator[None]:
    """Let the processes that start in the block compute with so many threads each, unless the user said otherwise.

    Every worker's linear algebra would take all cores, and threads that wait for one another keep them busy: drawing
    abdomens took thirty times as long.
    """
    missing = [name for name in _NUM_THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(missing, str(num_threads)))
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]
