"""Cohorts by several processes: the same files for any number of them, and after any of them was killed."""

import os
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.synthesis.conftest import NoisePainter, numbers_alone
from tests.synthesis.contract import contents

from promptlesion.data.dataset import Dataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.synthesis import workers
from promptlesion.synthesis.batch_size import SCANS_TOGETHER, open_scans_bytes, scans_at_once
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.share import Share
from promptlesion.synthesis.synthesizer import Synthesizer
from promptlesion.synthesis.workers import WorkerError, default_num_workers, process_device, run_workers, worker_device

COUNTS = {"bright": 8, "dark": 8}
NUM_CASES = 8
ONE_OF_EACH = numbers_alone(bright=(1,), dark=(1,))


class SlowPainter(NoisePainter):
    """Leaves time to be killed."""

    def __init__(self, spec: DatasetSpec, *, seconds: float, **facts: Any) -> None:
        super().__init__(spec, **facts)
        self.seconds = seconds

    def paint(self, *args: object, **options: object) -> list[np.ndarray]:
        time.sleep(self.seconds)
        return super().paint(*args, **options)


def make(out: Path, dataset: Dataset, share: Share, seconds: float) -> None:
    """Do one share of a cohort, as a process of its own does it."""
    config = SynthesisConfig(num_steps=1, lesions_per_case=2)
    painter = SlowPainter(dataset.spec, statistics=ONE_OF_EACH, seconds=seconds)
    synthesize_cohort(dataset, painter, counts=COUNTS, config=config, out=out, seed=1, share=share)


def num_done(out: Path) -> int:
    return len(records(out))


def records(out: Path) -> dict[Path, int]:
    """When each case was made."""
    return {path: path.stat().st_mtime_ns for path in (out / "provenance").glob("synthetic*.json")}


@pytest.fixture
def lenient(scans: Dataset) -> Dataset:
    """Scans of two orientations, so that every case has a neighbour in the same scan."""
    return scans.select(["ras", "oblique"])


def test_two_processes_killed_three_times_write_what_one_writes(
    start_processes: Callable[..., list[ForkServerProcess]], lenient: Dataset, tmp_path: Path
) -> None:
    make(tmp_path / "one", lenient, Share(), 0.0)
    assert num_done(tmp_path / "one") == NUM_CASES
    out = tmp_path / "killed"

    def start(seconds: float) -> list[ForkServerProcess]:
        works = [partial(make, out, lenient, Share(index, 2), seconds) for index in range(2)]
        return [start_processes(work, num_processes=1)[0] for work in works]

    for wanted in (1, 3, 5):
        processes = start(0.1)
        deadline = time.monotonic() + 60
        while num_done(out) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        assert not (out / "dataset.json").exists()
    kept = records(out)
    assert 5 <= len(kept) < NUM_CASES
    for process in start(0.0):
        process.join()
        assert process.exitcode == 0
    assert contents(out) == contents(tmp_path / "one")
    assert kept.items() <= records(out).items()


def test_two_processes_with_the_same_share_never_make_the_same_case(
    start_processes: Callable[..., list[ForkServerProcess]], lenient: Dataset, tmp_path: Path
) -> None:
    make(tmp_path / "one", lenient, Share(), 0.0)
    both = [start_processes(partial(make, tmp_path / "two", lenient, Share(), 0.05), num_processes=1)[0] for _ in "ab"]
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def load_painter(device: str, *, dataset: Dataset) -> Synthesizer:
    assert device == "cpu"
    return NoisePainter(dataset.spec, statistics=ONE_OF_EACH)


def load_and_die(device: str, *, dataset: Dataset, at_process: Path) -> Synthesizer:
    """The first worker to come here is killed, the others are not."""
    try:
        at_process.touch(exist_ok=False)
    except FileExistsError:
        return NoisePainter(dataset.spec, statistics=ONE_OF_EACH)
    os.kill(os.getpid(), 9)
    raise AssertionError


@pytest.mark.slow
def test_worker_processes_write_what_one_process_writes_and_say_when_one_was_killed(
    lenient: Dataset, tmp_path: Path
) -> None:
    config = SynthesisConfig(num_steps=1, lesions_per_case=2)
    options = {"counts": COUNTS, "config": config, "seed": 1}
    painter = NoisePainter(lenient.spec, statistics=ONE_OF_EACH)
    synthesize_cohort(lenient, painter, out=tmp_path / "one", **options)
    load = partial(load_painter, dataset=lenient)
    assert synthesize_cohort(lenient, painter, out=tmp_path / "two", load=load, num_workers=2, **options).is_finished
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    dying = partial(load_and_die, dataset=lenient, at_process=tmp_path / "died")
    with pytest.raises(WorkerError, match=r"worker [12] of 2 was killed by signal 9\. Run the same command again"):
        synthesize_cohort(lenient, painter, out=tmp_path / "three", load=dying, num_workers=2, **options)
    assert num_done(tmp_path / "three") == NUM_CASES  # the other did its own part, and then what was left of all
    assert synthesize_cohort(lenient, painter, out=tmp_path / "three", load=load, num_workers=2, **options).is_finished
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def fail(error: Exception, index: int) -> None:
    if index == 1:
        raise error


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_said_by_the_one_that_started_it() -> None:
    polled: list[int] = []
    with pytest.raises(ValueError, match="case_3: expected HU"):
        run_workers(partial(fail, ValueError("case_3: expected HU")), num_workers=2, on_poll=lambda: polled.append(1))
    assert polled
    with pytest.raises(WorkerError, match=r"worker 2 of 2 could not go on: disk full\. Run the same command again"):
        run_workers(partial(fail, OSError("disk full")), num_workers=2, on_poll=lambda: None)


def sleep_long(folder: Path, index: int) -> None:
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)


@pytest.mark.slow
def test_ctrl_c_ends_all_workers(tmp_path: Path) -> None:
    def interrupt() -> None:
        if len(list(tmp_path.iterdir())) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workers(partial(sleep_long, tmp_path), num_workers=2, on_poll=interrupt)
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


def start_and_wait(folder: Path) -> None:
    run_workers(partial(sleep_long, folder), num_workers=2, on_poll=lambda: None)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(
    start_processes: Callable[..., list[ForkServerProcess]], tmp_path: Path
) -> None:
    (starter,) = start_processes(partial(start_and_wait, tmp_path), num_processes=1)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    starter.kill()
    starter.join()
    pids = [int(path.name) for path in tmp_path.iterdir()]
    while any(Path(f"/proc/{pid}/cmdline").is_file() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestNumber:
    def test_one_a_core_of_a_cpu_but_none_for_a_handful_of_cases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
        monkeypatch.setattr(workers, "main_memory_bytes", lambda: 2**36)
        cpu = torch.device("cpu")
        numbers = [default_num_workers(cpu, count, scan_voxels=10**6) for count in (0, 1, 7, 8, 15, 16, 10_000)]
        assert numbers == [1, 1, 1, 2, 3, 4, 4]
        monkeypatch.setattr(workers, "main_memory_bytes", lambda: 2**33)
        gib = 2**30 // 24  # voxels of four open scans
        assert [default_num_workers(cpu, 100, scan_voxels=n * gib) for n in (0, 1, 2, 3, 9)] == [4, 3, 2, 1, 1]  # 8 GiB
        monkeypatch.setenv("RANK", "0")
        assert default_num_workers(cpu, 100, scan_voxels=0) == 1

    def test_one_on_an_accelerator(self) -> None:
        assert default_num_workers(torch.device("cuda"), 1000, scan_voxels=0) == 1
        assert default_num_workers(torch.device("mps"), 1000, scan_voxels=0) == 1

    def test_an_accelerator_s_process_has_twice_the_scans_open(self) -> None:
        cpu, cuda = (open_scans_bytes(torch.device(name), scan_voxels=10**6) for name in ("cpu", "cuda"))
        assert cuda == 2 * cpu == 6e6 * scans_at_once(torch.device("cuda")) == 6e6 * 2 * SCANS_TOGETHER

    def test_gpus_are_shared_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert [worker_device(torch.device("cuda"), index) for index in range(4)] == [
            "cuda:0",
            "cuda:1",
            "cuda:2",
            "cuda:0",
        ]
        assert worker_device(torch.device("cuda:2"), 0) == "cuda:2"
        assert worker_device(torch.device("cpu"), 5) == "cpu"
        for name in ("LOCAL_RANK", "SLURM_STEP_ID"):
            monkeypatch.delenv(name, raising=False)
        assert process_device("auto") == "auto"
        monkeypatch.setenv("LOCAL_RANK", "4")
        assert [process_device(name) for name in ("auto", "cuda", "cpu", "cuda:2")] == [
            "cuda:1",
            "cuda:1",
            "cpu",
            "cuda:2",
        ]
