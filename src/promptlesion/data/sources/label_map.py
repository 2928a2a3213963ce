"""Label maps of other layouts: any whole numbers, or one mask a structure, as one uint8 map."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import count

import numpy as np
from jaxtyping import Int64, UInt8

from promptlesion.data.grouping import grouped
from promptlesion.data.spec import DatasetError

MAX_LABEL = 255
_LESION = re.compile(
    r"l[ae]sion|tumou?r|cancer|carcinoma|sarcoma|metasta|cyst|nodule|plaque|calcification|mass(?![a-z])|[gc]tv"
    r"|опухол|метастаз|кист[аы]|бляшк|кальцинат|[肿腫][瘤瘍]|[结結][节節]|病[灶変变]|[转轉転]移|[囊嚢][肿腫胞]"
    r"|斑[块塊]|[钙鈣]化|石灰化",
    re.I,
)


def structure_title(text: object) -> str:
    """Return what a file calls a structure, without what is no part of the name; empty where it has none."""
    return unicodedata.normalize("NFC", str(text or "")).strip(" \0\t\r\n")


def label_name(text: str) -> str:
    """Return a name as commands and `lesions.toml` take it: letters of any script, digits, `_` and `-`, or nothing."""
    kept = (sign if sign == "-" or _is_word_sign(sign) else "_" for sign in unicodedata.normalize("NFKC", text))
    return re.sub("_+", "_", "".join(kept)).strip("_-")


def label_names(titles: Iterable[str]) -> dict[str, str]:
    """Give every title a label name of its own: numbered where two titles would become one, or one becomes nothing."""
    sharing = grouped((label_name(title), title) for title in sorted(set(titles)))
    names: dict[str, str] = {}
    for name, sharers in sharing.items():
        if name and len(sharers) == 1:
            names[sharers[0]] = name
            continue
        candidates = (f"{name or 'structure'}_{number}" for number in count(1))
        free = (candidate for candidate in candidates if candidate not in sharing)
        names |= dict(zip(sharers, free, strict=False))
    return names


def renamed(names: Mapping[str, str]) -> list[str]:
    """Say which titles were numbered, and what each is called now."""
    numbered = [(title, name) for title, name in names.items() if label_name(title) != name]
    return [
        f"{title!r} is called {name}: without their signs, two names would be one, or none" for title, name in numbered
    ]


def is_background_name(title: str) -> bool:
    """Whether a structure of this name is what has no label."""
    return label_name(title).lower() == "background"


def is_lesion_name(name: str) -> bool:
    """Whether a structure of this name is a lesion, which is drawn over organs."""
    without_accents = (sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return _LESION.search("".join(without_accents)) is not None


def numbered_labels(names: Iterable[str], *, place: object) -> dict[str, int]:
    """Give every structure a value: the background 0, then organs by name, then lesions by name."""
    ordered = sorted(set(names) - {"background"}, key=lambda name: (is_lesion_name(name), name.lower(), name))
    if len(ordered) > MAX_LABEL:
        raise DatasetError(
            f"{place}: expected at most {MAX_LABEL} structures of different names, as label maps hold, found "
            f"{len(ordered)}: {', '.join(ordered[:5])}, …; give those that are one label one name, or prepare parts of "
            "the folder"
        )
    return {"background": 0} | {name: value for value, name in enumerate(ordered, start=1)}


def _is_word_sign(sign: str) -> bool:
    category = unicodedata.category(sign)
    return category[0] in "LM" or category == "Nd"


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
        name, _, value = unicodedata.normalize("NFKC", text).partition("=")
        if not name or name != label_name(name) or not value.isdigit() or not 1 <= int(value) <= 255:
            raise ValueError(
                f"--label {text}: expected NAME=VALUE, a name of letters and digits, a value from 1 to 255"
            )
        if name in names or int(value) in names.values():
            raise ValueError(f"--label {text}: expected every name and every value once")
        names[name] = int(value)
    return names
