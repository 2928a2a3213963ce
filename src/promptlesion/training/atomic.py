"""Files that appear whole or not at all: written beside their place, then renamed."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PARTIAL = ".partial."


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the error that leaves the block name what was written: a full disk tells no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path of its own in the same folder; it becomes `path`, or goes where the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}.{path.name}")
    try:
        with naming(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, but_not_beside: str | None = None) -> None:
    """Remove what killed processes left half written in a folder where nobody else is writing.

    Args:
        folder: with all that is in it,
        but_not_beside: but for folders in it that hold a folder of this name: there somebody is writing.
    """
    for place, folders, files in os.walk(folder):
        if but_not_beside in folders and Path(place) != folder:
            folders.clear()
            continue
        for path in (Path(place, name) for name in (*folders, *files) if name.startswith(_PARTIAL)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_text(path: Path) -> str:
    """Read a text file of UTF-8, with or without the byte-order mark that Windows programs put before it."""
    return path.read_text(encoding="utf-8-sig")


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an indented JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; what is none raises a `ValueError` that names the file."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: expected a JSON file; found an error: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; found {str(content)[:80]}")
    return content
