"""Independent pieces of work in several processes, each of one thread."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from typing import TypeVar

_NUM_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_WORKERS_IMPORT = "promptlesion.synthesis.synthesizer"
"""With it come all that paints, and torch."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_processes(function: Callable[[Item], Result], items: Sequence[Item], num_workers: int) -> Iterator[Result]:
    """Yield what the function makes of each item, as it is done; one worker works in this process, in order."""
    if num_workers < 1:
        raise ValueError(f"expected at least one worker, found {num_workers}")
    if num_workers == 1 or len(items) < 2:
        for item in items:
            yield function(item)
        return
    num_processes = min(num_workers, len(items))
    with ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=end_with_parent) as pool:
        with threads_each(1):
            futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a worker was killed, for want of memory probably; try fewer --workers than {num_workers}"
            ) from error
        finally:
            for future in futures:
                future.cancel()


def start_importing() -> None:
    """Let another process import what workers need, while this one goes on; workers are copies of it.

    Without it every worker would spend seconds on its imports, after this process did. It has one thread, and computes
    nothing that a copy must not inherit.
    """
    get_context("forkserver").set_forkserver_preload([_WORKERS_IMPORT])
    with threads_each(1):
        forkserver.ensure_running()


def end_with_parent() -> None:
    """Let this process end when the one that started it is killed.

    Else it would go on with its work, and wait for ever for more, while the same command runs again beside it.
    """

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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
