from pathlib import Path

import pytest

from promptlesion.data.whole_file import write_bytes_whole, write_text_whole, written_whole


def test_the_file_appears_whole_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notes.txt"
    write_text_whole(path, "Höhe")
    assert path.read_bytes() == "Höhe".encode()
    assert [file.name for file in path.parent.iterdir()] == ["notes.txt"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_bytes_whole(path, b"old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_that_is_being_written_is_not_taken_for_a_scan(tmp_path: Path) -> None:
    with written_whole(tmp_path / "case_0000.nii.gz") as temporary:
        temporary.write_bytes(b"half")
        assert list(tmp_path.glob("*.nii.gz")) == []
