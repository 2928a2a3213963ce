"""Label maps of other layouts: any whole numbers, or one mask a structure, as one uint8 map."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64, UInt8

from promptlesion.data.spec import DatasetError

_LESION = re.compile(
    r"lesion|tumou?r|cancer|carcinoma|sarcoma|metasta|cyst|nodule|plaque|calcification|mass(?![a-z])|[gc]tv", re.I
)


def label_name(text: str) -> str:
    """Return a name as commands and `lesions.toml` take it: letters, digits, `_` and `-`; may come out empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", plain).strip("_-")


def is_lesion_name(name: str) -> bool:
    """Whether a structure of this name is a lesion, which is drawn over organs."""
    return _LESION.search(name) is not None


def numbered_labels(names: Iterable[str]) -> dict[str, int]:
    """Give every structure a value: the background 0, then organs by name, then lesions by name."""
    ordered = sorted(set(names) - {"background"}, key=lambda name: (is_lesion_name(name), name.lower(), name))
    if len(ordered) > 255:
        raise DatasetError(f"expected at most 255 structures, found {len(ordered)}: {', '.join(ordered[:5])}, …")
    return {"background": 0} | {name: value for value, name in enumerate(ordered, start=1)}


def paint_structures(
    shape: tuple[int, int, int],
    structures: Iterable[tuple[str, Int64[np.ndarray, " _"]]],
    labels: Mapping[str, int],
) -> UInt8[np.ndarray, "x y z"]:
    """Draw structures, each given by its flat voxel indices, into one label map.

    Where they overlap, a lesion wins over what is no lesion, and the smaller over the larger: a tumour inside
    its organ and an organ inside the body's outline survive, in whatever order they come.
    """
    painted = np.zeros(shape, dtype=np.uint8)
    flat = painted.reshape(-1)
    extent = np.full(256, np.inf)  # of each label drawn so far; a lesion's counts as less than any organ's
    for name, voxels in structures:
        own = float(len(voxels)) - (flat.size if is_lesion_name(name) else 0)
        won = voxels[extent[flat[voxels]] > own]
        flat[won] = labels[name]
        extent[labels[name]] = own
    return painted


def parse_label_names(texts: Sequence[str]) -> dict[str, int]:
    """Read label names with their values, `NAME=VALUE`, as `--label` takes them."""
    names: dict[str, int] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or name != label_name(name) or not value.isdigit() or not 1 <= int(value) <= 255:
            raise ValueError(
                f"--label {text}: expected NAME=VALUE, a name of letters and digits, a value from 1 to 255"
            )
        if name in names or int(value) in names.values():
            raise ValueError(f"--label {text}: expected every name and every value once")
        names[name] = int(value)
    return names
