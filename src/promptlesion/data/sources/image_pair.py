"""A CT and its label map in a file each: what most public layouts come down to."""

from functools import partial
from pathlib import Path

from promptlesion.data.sources.image_files import read_image
from promptlesion.data.sources.source import Scan, SourceCase


def pair_case(name: str, image: Path, labels: Path) -> SourceCase:
    """Return the case of two files; a missing one is its refusal."""
    lacking = [str(path) for path in (image, labels) if not path.is_file()]
    return SourceCase(
        name=name,
        files=() if lacking else (image, labels),
        read=partial(read_pair, image, labels),
        origin={"file": str(image)},
        refusal=f"{name}: expected the file {' and '.join(lacking)}, found none" if lacking else None,
    )


def read_pair(image: Path, labels: Path) -> Scan:
    """Read a CT and its label map."""
    return Scan(read_image(image), read_image(labels))
