"""Cohorts by several processes: the same files for any number of them, and after any of them was killed."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.synthesis.conftest import NoisePainter, numbers_alone
from tests.synthesis.contract import contents

from promptlesion.data.dataset import Dataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.shard import Shard
from promptlesion.synthesis.synthesizer import Synthesizer

COUNTS = {"bright": 8, "dark": 8}
NUM_CASES = 8
ONE_OF_EACH = numbers_alone(bright=(1,), dark=(1,))


class SlowPainter(NoisePainter):
    """Leaves time to be killed, and is at one of its calls."""

    def __init__(self, spec: DatasetSpec, *, seconds: float, dies_at: int | None = None, **facts: Any) -> None:
        super().__init__(spec, **facts)
        self.seconds, self.dies_at = seconds, dies_at

    def paint(self, *args: object, **options: object) -> list[np.ndarray]:
        time.sleep(self.seconds)
        if len(self.calls) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().paint(*args, **options)


def make(out: Path, dataset: Dataset, shard: Shard, seconds: float) -> None:
    """Do one share of a cohort, as a process of its own does it."""
    config = SynthesisConfig(num_steps=1, lesions_per_case=2)
    painter = SlowPainter(dataset.spec, statistics=ONE_OF_EACH, seconds=seconds)
    synthesize_cohort(dataset, painter, counts=COUNTS, config=config, out=out, seed=1, shard=shard)


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
    make(tmp_path / "one", lenient, Shard(), 0.0)
    assert num_done(tmp_path / "one") == NUM_CASES
    out = tmp_path / "killed"

    def start(seconds: float) -> list[ForkServerProcess]:
        works = [partial(make, out, lenient, Shard(index, 2), seconds) for index in range(2)]
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
    make(tmp_path / "one", lenient, Shard(), 0.0)
    for out in (tmp_path / "two", tmp_path / "again"):
        work = partial(make, out, lenient, Shard(), 0.05)
        for process in [start_processes(work, num_processes=1)[0] for _ in range(2)]:
            process.join()
            assert process.exitcode == 0
        assert contents(out) == contents(tmp_path / "one")


def load_painter(device: str, *, dataset: Dataset) -> Synthesizer:
    assert device == "cpu"
    return NoisePainter(dataset.spec, statistics=ONE_OF_EACH)


def load_and_die(device: str, *, dataset: Dataset, folder: Path) -> Synthesizer:
    """The first worker to come here is killed before it paints, the next in the middle of it."""
    for name in ("before", "amid"):
        with suppress(FileExistsError):
            (folder / name).touch(exist_ok=False)  # two come here at once
            if name == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            return SlowPainter(dataset.spec, statistics=ONE_OF_EACH, seconds=0.0, dies_at=2)
    return NoisePainter(dataset.spec, statistics=ONE_OF_EACH)


@pytest.mark.slow
def test_a_cohort_s_workers_write_what_one_process_writes_though_they_are_killed(
    lenient: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = SynthesisConfig(num_steps=1, lesions_per_case=2)
    options = {"counts": COUNTS, "config": config, "seed": 1}
    painter = NoisePainter(lenient.spec, statistics=ONE_OF_EACH)
    synthesize_cohort(lenient, painter, out=tmp_path / "one", **options)
    load = partial(load_painter, dataset=lenient)
    assert synthesize_cohort(lenient, painter, out=tmp_path / "two", load=load, num_workers=2, **options).is_finished
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert not caplog.records
    dying = partial(load_and_die, dataset=lenient, folder=tmp_path)
    assert synthesize_cohort(lenient, painter, out=tmp_path / "three", load=dying, num_workers=2, **options).is_finished
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert ["its process was killed by signal 9; it is done again" in text for text in caplog.messages] == [True] * 2
