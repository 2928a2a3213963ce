import os
import shutil
from pathlib import Path

import pytest

from promptlesion.data import content
from promptlesion.data.content import content_of


def write(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    os.utime(path, ns=(0, 0))
    return path


def test_equal_bytes_are_one_content_and_others_of_like_size_and_time_are_not(tmp_path: Path) -> None:
    first, second, third = (write(tmp_path / name, text) for name, text in (("a", b"12"), ("b", b"12"), ("c", b"21")))
    assert content_of([first], {})["files"] == content_of([second], {})["files"]
    assert content_of([first], {})["files"] != content_of([third], {})["files"]
    assert content_of([first], {})["seen"] != content_of([second], {})["seen"]


def test_bytes_between_files_do_not_move_unseen(tmp_path: Path) -> None:
    pairs = [
        [write(tmp_path / f"{a}-{b}-{part}", bytes(part, "ascii")) for part in (a, b)]
        for a, b in (("1", "22"), ("12", "2"))
    ]
    assert content_of(pairs[0], {})["files"] != content_of(pairs[1], {})["files"]


def test_what_nobody_touched_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", b"12")
    known = content_of([path], {})
    content._hash_of.cache_clear()
    monkeypatch.setattr(content, "file_hash", lambda path: pytest.fail(f"{path} was read"))
    assert content_of([path], known) == known


@pytest.mark.parametrize("how", ["in place", "replaced", "copied with its times"])
def test_another_content_of_the_same_size_and_time_is_noticed(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / "a", b"12")
    known = content_of([path], {})
    other = write(tmp_path / "b", b"21")
    if how == "in place":
        write(path, b"21")
    elif how == "replaced":
        other.replace(path)
    else:
        shutil.copy2(other, path)
    assert path.stat().st_mtime_ns == 0
    assert content_of([path], known)["files"] != known["files"]


def test_where_times_prove_nothing_files_are_always_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_IS_CHANGE_TIMED", False)
    path = write(tmp_path / "a", b"12")
    known = content_of([path], {})
    write(path, b"21")
    assert content_of([path], known)["files"] != known["files"]
