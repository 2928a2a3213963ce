"""Work in several processes: every item once, one thread each, errors come back."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptlesion.data.processes import run_in_processes, threads_each


def test_processes_haveone_thread_each_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with threads_each(1):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert dict(os.environ) == before


def _half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_is_done_once_and_errors_come_back(num_workers: int) -> None:
    assert sorted(run_in_processes(_half, [2, 4, 6], num_workers)) == [1, 2, 3]
    assert list(run_in_processes(_half, [], num_workers)) == []
    with pytest.raises(ValueError, match="3 is odd"):
        list(run_in_processes(_half, [2, 3], num_workers))
    with pytest.raises(ValueError, match="at least one worker, found 0"):
        list(run_in_processes(_half, [2], 0))


def _tell_and_sleep(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(60)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks Linux which processes there are")
def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from promptlesion.data.processes import run_in_processes;"
        "from tests.data.test_processes import _tell_and_sleep;"
        f"list(run_in_processes(_tell_and_sleep, [Path({str(tmp_path)!r}, n) for n in '12'], 2))"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 60
    while sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    workers = [int(path.read_text()) for path in tmp_path.iterdir()]
    while any(map(_is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
