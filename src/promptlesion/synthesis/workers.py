"""Worker processes on this machine: started, watched, and ended together with the one that started them."""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from promptlesion.data.processes import end_with_parent, start_importing
from promptlesion.synthesis.batch_size import open_scans_bytes
from promptlesion.training.memory import main_memory_bytes

_POLL_SECONDS = 0.25
_CASES_PER_WORKER = 4
"""Fewer are done before a process that must first import everything has begun."""
_GIB_PER_WORKER = 1.5
"""Beside the scans that it has open."""


class WorkerError(RuntimeError):
    """A worker was killed or could not do its work; the message says what is left to do."""


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    messages: Connection


def default_num_workers(device: torch.device, num_cases: int, *, scan_voxels: int) -> int:
    """Return how many processes paint by default: one on an accelerator, on a CPU one a core, as far as memory goes.

    A small cohort is done by one.

    Args:
        device: what they compute on.
        num_cases: cases to be made.
        scan_voxels: of the largest scan.
    """
    if device.type != "cpu" or "RANK" in os.environ:  # torchrun has started as many as there should be
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gib = main_memory_bytes() / 2**30
    gib = _GIB_PER_WORKER + open_scans_bytes(device, scan_voxels=scan_voxels) / 2**30
    return max(1, min(cores, int(memory_gib // gib), num_cases // _CASES_PER_WORKER))


def process_device(name: str) -> str:
    """Return the device of this process: those that torchrun or srun started take turns on the machine's GPUs."""
    number = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID") if "SLURM_STEP_ID" in os.environ else None)
    if number is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{int(number) % torch.cuda.device_count()}"


def worker_device(device: torch.device, index: int) -> str:
    """Return the device of a worker; those on GPUs take turns unless one GPU was asked for by number."""
    if device.type == "cuda" and device.index is None:
        return f"cuda:{index % torch.cuda.device_count()}"
    return str(device)


def run_workers(work: Callable[[int], None], *, num_workers: int, on_poll: Callable[[], None]) -> None:
    """Call `work(0)`, `work(1)` … each in a process of its own; one that fails does not stop the others.

    Whatever ends this process, Ctrl+C among it, ends them too.

    Args:
        work: what a worker does; it must survive pickling.
        num_workers: processes.
        on_poll: called a few times a second while they work.

    Raises:
        ValueError: a worker found its input bad.
        WorkerError: a worker was killed, or could not finish.
    """
    start_importing()
    context = get_context("forkserver")
    workers = []
    try:
        for index in range(num_workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(work, index, sender), daemon=True)
            process.start()
            sender.close()
            workers.append(_Worker(process, receiver))
        while alive := [worker.process.sentinel for worker in workers if worker.process.is_alive()]:
            wait(alive, timeout=_POLL_SECONDS)
            on_poll()
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
    _raise_for(workers)


def _raise_for(workers: Sequence[_Worker]) -> None:
    """Raise what went wrong in the workers; bad input before all else."""
    failures = []
    for number, worker in enumerate(workers, start=1):
        code = worker.process.exitcode
        if code == 0:
            continue
        is_bad_input, message = False, f"worker {number} of {len(workers)} "
        try:
            is_bad_input, found = worker.messages.recv()
            message += f"could not go on: {found}"
        except EOFError:
            message += f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        if is_bad_input:
            raise ValueError(found)
        failures.append(message)
    if failures:
        raise WorkerError("; ".join(failures) + ". Run the same command again: what is finished is not redone")


def _run(work: Callable[[int], None], index: int, messages: Connection) -> None:
    """Do a worker's work; what goes wrong is told to the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all: the one that started this ends it
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        work(index)
    except (OSError, RuntimeError, ValueError) as error:
        messages.send((isinstance(error, ValueError), f"{error}"))
        raise SystemExit(1) from None
