"""The pool: every item once, errors come back, and no process outlives the one that started it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from promptlesion.training.pool import Pool, WorkerError, run_in_processes, threads_each, worker_number


def test_processes_have_one_thread_each_unless_the_user_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with threads_each(1):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert dict(os.environ) == before


def half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_is_done_once_and_errors_come_back(num_workers: int) -> None:
    assert sorted(run_in_processes(half, range(0, 20, 2), num_workers=num_workers)) == list(range(10))
    assert list(run_in_processes(half, [], num_workers=num_workers)) == []
    with pytest.raises(ValueError, match="3 is odd"):
        list(run_in_processes(half, [2, 3], num_workers=num_workers))
    with pytest.raises(ValueError, match="at least one worker, found 0"):
        list(run_in_processes(half, [2], num_workers=0))


def who(_: int) -> tuple[int, int]:
    time.sleep(0.05)
    return os.getpid(), worker_number()


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_worker_knows_its_number_and_is_kept_or_made_anew(is_fresh: bool) -> None:
    found: list[tuple[int, int]] = []
    with Pool(who, 2, is_fresh=is_fresh) as pool:
        for _ in range(2):
            pool.submit(0)
            pool.submit(1)
            with pytest.raises(ValueError, match="expected fewer than 2 items at work"):
                pool.submit(2)
            while pool.num_busy:
                found += [done.result() for done in pool.wait()]
        assert pool.wait() == []
    assert sorted(number for _, number in found) == [0, 0, 1, 1]
    assert len({pid for pid, _ in found}) == (4 if is_fresh else 2)
    assert os.getpid() not in {pid for pid, _ in found}
    assert worker_number() == 0


class Counter:
    """Counts its calls, and could not be sent once it has."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def __call__(self, _: int) -> int:
        self.calls.append(lambda: None)
        return len(self.calls)


def test_a_process_keeps_what_the_function_has_loaded() -> None:
    assert sum(run_in_processes(Counter(), range(9), num_workers=2)) > 9


def die_first(path: Path) -> str:
    """Be killed as often as the file's name says."""
    kills = path.read_text() if path.is_file() else ""
    if len(kills) < int(path.name):
        path.write_text(kills + "x")
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_the_item_of_a_killed_process_is_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [tmp_path / number for number in ("0", "00", "1", "2")]
    assert sorted(run_in_processes(die_first, items, num_workers=2)) == ["0", "00", "1", "2"]
    assert f"{tmp_path / '1'}: its process was killed by signal 9; it is done again" in caplog.text
    assert len(caplog.records) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGKILL")
def test_an_item_that_kills_three_processes_is_named(tmp_path: Path) -> None:
    results = run_in_processes(
        die_first, [tmp_path / "9", tmp_path / "0"], num_workers=2, name_of=lambda path: path.name
    )
    with pytest.raises(WorkerError, match=r"^9: its process was killed by signal 9, 3 times; memory ran out, probably"):
        list(results)


def tell_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_sleepers(folder: Path) -> None:
    """Start two workers that sleep; called in a process of its own."""
    with closing(run_in_processes(tell_and_sleep, [folder / n for n in "12"], num_workers=2)) as results:
        list(results)


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks Linux which processes there are")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    code = "import sys, pathlib; from tests.training.test_pool import *; start_sleepers(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    started = time.monotonic()
    if number == signal.SIGINT:  # as Ctrl+C does
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
    _, told = parent.communicate(timeout=10)
    workers = [int(path.read_text()) for path in tmp_path.iterdir()]
    while any(map(is_running, workers)):
        assert time.monotonic() < started + 5
        time.sleep(0.02)
    assert told.count("KeyboardInterrupt") == (number == signal.SIGINT)
