"""Files appear whole or not at all."""

import errno
import json
from pathlib import Path

import pytest

from promptlesion.training.atomic import read_json, write_json, write_text, written_whole


def test_the_folder_holds_the_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "µ\n")
    assert path.read_text(encoding="utf-8") == "µ\n"
    assert list(path.parent.iterdir()) == [path]


def test_the_file_is_not_there_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    with written_whole(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "half"


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="disk"), written_whole(path) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert not path.exists()
    write_json(path, {"loss": 0.5, "name": "x"})
    assert json.loads(path.read_text()) == {"loss": 0.5, "name": "x"}


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    with pytest.raises(OSError, match=r"No space left on device: .*scan.nii.gz"), written_whole(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "found"), [("{", "an error"), ("[1]", r"\[1\]"), ("", "an error")])
def test_json_that_is_none_names_the_file(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"card.json: expected a JSON .*; found {found}"):
        read_json(path)
