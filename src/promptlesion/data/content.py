"""Files known by what they hold: hashed once, and again as soon as anything about them has changed."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from promptlesion.training.atomic import file_hash

_IS_CHANGE_TIMED = os.name != "nt"
"""Whether `st_ctime` is when a file last changed in any way, which nobody can set back; on Windows it is its birth."""


def content_of(paths: Sequence[Path], known: Mapping[str, object]) -> dict[str, str]:
    """Return what identifies the files by content, `files`, and what shows that nobody has touched them, `seen`.

    `known` is an earlier answer, which is taken over where `seen` is still the same: device, inode, size, times of
    writing and of change of every file. Size and time of writing alone prove nothing, as copying may keep both.
    """
    seen = _seen(paths)
    earlier = known.get("files")
    if known.get("seen") == seen and isinstance(earlier, str):
        return {"files": earlier, "seen": seen}
    return {"files": _hash_of(tuple(paths), seen), "seen": seen}


def voxels_hash(hu: Shaped[np.ndarray, "x y z"]) -> str:
    """Return what identifies a scan by its voxels, to whole HU, in whatever file and number type they stand."""
    digest = hashlib.sha256(repr(hu.shape).encode())
    for plane in hu:
        with np.errstate(invalid="ignore"):
            digest.update(np.rint(plane).astype("<i2").tobytes())
    return digest.hexdigest()


def _seen(paths: Sequence[Path]) -> str:
    if not _IS_CHANGE_TIMED:
        return f"at {time.time_ns()}"
    states = [path.stat() for path in paths]
    return _hash([(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in states])


@lru_cache(4096)
def _hash_of(paths: tuple[Path, ...], seen: str) -> str:
    """Hash the files, once for as long as they are `seen` unchanged."""
    return _hash([file_hash(path) for path in paths])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
