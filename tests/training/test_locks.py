"""A lock is held by one process at a time, and a file system where that is not so is refused."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from promptlesion.training import locks
from promptlesion.training.atomic import written_whole
from promptlesion.training.locks import LockError, alone_in, check_locks, lock_if_free, locked


def hold(path: Path) -> None:
    with locked(path):
        time.sleep(60)


def test_a_lock_is_held_by_one_and_goes_with_a_process_that_is_killed(
    start_processes: Callable[..., list[ForkServerProcess]], tmp_path: Path
) -> None:
    path = tmp_path / "locks" / "case.lock"
    (holder,) = start_processes(partial(hold, path), num_processes=1)
    deadline, is_free = time.monotonic() + 60, True
    while is_free:
        assert holder.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
        if path.is_file():
            with lock_if_free(path) as is_free:
                pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with lock_if_free(path) as is_free:
        assert is_free
        with lock_if_free(path) as is_free_again:
            assert not is_free_again
    with locked(path):
        pass


def test_one_command_waits_for_the_other_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []

    def second() -> None:
        with alone_in(tmp_path / "out"):
            order.append("second")

    with alone_in(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        while not caplog.records:
            time.sleep(0.01)
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'out'}: another command is at work there; this one waits for it"
    ]
    assert list((tmp_path / "out").iterdir()) == []


def add_one(folder: Path) -> None:
    """Count in a file, as no two processes may at once."""
    for _ in range(50):
        with alone_in(folder):
            path = folder / "count"
            path.write_text(str(int(path.read_text() if path.is_file() else "0") + 1))


def test_there_is_never_more_than_one_though_the_lock_s_file_comes_and_goes(
    start_processes: Callable[..., list[ForkServerProcess]], tmp_path: Path
) -> None:
    for process in [start_processes(partial(add_one, tmp_path), num_processes=1)[0] for _ in range(3)]:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "count").read_text() == "150"


def test_what_killed_commands_left_goes_but_not_what_another_is_writing(tmp_path: Path) -> None:
    old = [tmp_path / ".partial.0123.a.json", tmp_path / "imagesTr" / ".partial.0123.b.nii.gz"]
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    with alone_in(tmp_path / "check"), written_whole(tmp_path / "check" / "c.html") as temporary:
        temporary.write_text("whole")
        with alone_in(tmp_path):
            assert not any(path.exists() for path in old)
    assert (tmp_path / "check" / "c.html").read_text() == "whole"


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("server:/x {} nfs rw,vers=3,nolock 0 0", True),
        ("server:/x {} nfs4 rw,local_lock=all 0 0", True),
        ("server:/x {} nfs rw,vers=3,local_lock=none 0 0", False),
        ("mgs:/x {} lustre rw,localflock 0 0", True),
        ("mgs:/x {} lustre rw,flock 0 0", False),
        ("/dev/sda {} ext4 rw,nolock 0 0", False),
    ],
)
def test_a_file_system_whose_locks_end_at_the_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, is_refused: bool
) -> None:
    mounts = tmp_path / "mounts"
    place = tmp_path / "a share"
    mounts.write_text(f"none / overlay rw 0 0\n{line.format(str(place).replace(' ', chr(92) + '040'))}\n")
    monkeypatch.setattr(locks, "_MOUNTS", mounts)
    expected = r"out: expected a file system on which all machines see one another's locks; found one mounted with \w+"
    with pytest.raises(LockError, match=expected) if is_refused else nullcontext():
        check_locks(place / "out")
    check_locks(tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []


class NoLock:
    """A lock of a file system that gives it to everybody, or to nobody."""

    error: Exception | None = None

    def __init__(self, path: Path, **options: object) -> None:
        pass

    def acquire(self, **options: object) -> None:
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (None, "gave the same lock twice"),
        (NotImplementedError("FileSystem does not appear to support flock"), "does not appear to support flock"),
        (OSError(37, "No locks available"), "No locks available"),
    ],
)
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None, found: str
) -> None:
    monkeypatch.setattr(NoLock, "error", error)
    monkeypatch.setattr(locks, "FileLock", NoLock)
    with pytest.raises(LockError, match=rf"{tmp_path.name}: expected a file system with locks; found .*{found}"):
        check_locks(tmp_path)
    with pytest.raises(LockError), locked(tmp_path / "locks" / "a.lock"):
        pass
