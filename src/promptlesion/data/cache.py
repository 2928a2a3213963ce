"""The preprocessing cache: every case at the networks' spacing, in memory-mapped arrays that open at once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int16, Int32, Shaped, UInt8
from scipy import ndimage

from promptlesion.data.content import content_of, voxels_hash
from promptlesion.data.dataset import Case, Dataset, read_case
from promptlesion.data.lesion_instances import LesionInstance, find_lesions
from promptlesion.data.resampling import resample_to_spacing
from promptlesion.training.atomic import read_json, write_text, written_whole
from promptlesion.training.locks import alone_in

_CACHE_VERSION = 2
_VOXELS_PER_LABEL = 4096


@dataclass(frozen=True)
class CachedCase:
    """A prepared case. Nothing is read before it is asked for, and a pickle holds the three fields alone."""

    name: str
    subject: str
    folder: Path

    @property
    def image(self) -> Int16[np.ndarray, "x y z"]:
        """HU at the cache's spacing, memory-mapped read-only; opened anew each time it is asked for."""
        return _open_array(self.folder / f"{self.name}.image.npy")

    @property
    def labels(self) -> UInt8[np.ndarray, "x y z"]:
        """The label map on the grid of `image`, memory-mapped read-only."""
        return _open_array(self.folder / f"{self.name}.label.npy")

    @cached_property
    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Voxel indices of `image` to world millimetres."""
        return np.array(self._card["affine"], dtype=np.float64)

    @cached_property
    def lesions(self) -> tuple[LesionInstance, ...]:
        """The lesions of the label map, on the cache's grid."""
        return tuple(_lesion_of(entry) for entry in self._card["lesions"])

    @cached_property
    def num_label_voxels(self) -> dict[int, int]:
        """How many voxels each label that occurs has, background left out."""
        return {int(label): count for label, count in self._card["num_label_voxels"].items()}

    def label_voxels(self, label: int) -> Int32[np.ndarray, "_ 3"]:
        """Return up to 4096 voxels of a label that occurs (not background), drawn evenly once; read each time."""
        with np.load(self.folder / f"{self.name}.voxels.npz") as stored:
            voxels: np.ndarray = stored[str(label)]
        return voxels

    @property
    def key(self) -> str:
        """Identifies the files and settings this case was prepared from."""
        return str(self._card["key"])

    @property
    def scan_hash(self) -> str:
        """SHA-256 of the CT's voxels as they are in the dataset; see `voxels_hash`."""
        return str(self._card["scan_sha256"])

    @cached_property
    def _card(self) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.folder / f"{self.name}.json").read_text(encoding="utf-8"))
        return card

    def __reduce__(self) -> tuple[type["CachedCase"], tuple[str, str, Path]]:
        """Pickle the fields, not what has been read since."""
        return CachedCase, (self.name, self.subject, self.folder)


def build_cache(
    dataset: Dataset, folder: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> list[CachedCase]:
    """Prepare every case of the dataset at `spec.spacing_mm` and return them in its order.

    Cases already prepared from the same files with the same settings are kept; changed or half-written ones
    are done again. `on_progress(done, total)` is called after each case. Of two calls at once one waits.
    """
    is_whole = all(_to_prepare_from(dataset, case, folder) is None for case in dataset.cases)
    with nullcontext() if is_whole else alone_in(folder):
        for done, case in enumerate(dataset.cases, start=1):
            made_from = _to_prepare_from(dataset, case, folder)
            if made_from is not None:
                _prepare(dataset, case, folder, made_from)
            if on_progress is not None:
                on_progress(done, len(dataset.cases))
    return [CachedCase(name=case.name, subject=case.subject, folder=folder) for case in dataset.cases]


def _to_prepare_from(dataset: Dataset, case: Case, folder: Path) -> dict[str, str] | None:
    """Return what identifies the files and settings to prepare a case from; nothing where that is done."""
    card = _read_card(folder, case.name)
    content = content_of((case.image_path, case.label_path), card)
    key = _key(dataset, content["files"])
    is_done = card.get("key") == key and _is_whole(folder, case.name, card)
    return None if is_done else {"key": key, **content}


def _key(dataset: Dataset, files: str) -> str:
    settings = [
        _CACHE_VERSION,
        dataset.spec.spacing_mm,
        dataset.lesion_labels,
        sorted(dataset.labels.values()),
    ]
    return hashlib.sha256(json.dumps([files, settings]).encode()).hexdigest()


def _array_paths(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{ending}" for ending in ("image.npy", "label.npy", "voxels.npz")]


def _read_card(folder: Path, name: str) -> dict[str, Any]:
    """What an earlier run noted of a case; nothing where there is no whole card."""
    try:
        return read_json(folder / f"{name}.json")
    except (OSError, ValueError):
        return {}


def _is_whole(folder: Path, name: str, card: dict[str, Any]) -> bool:
    paths = _array_paths(folder, name)
    return all(path.is_file() for path in paths) and card.get("file_bytes") == [path.stat().st_size for path in paths]


def _prepare(dataset: Dataset, case: Case, folder: Path, made_from: dict[str, str]) -> None:
    card_path = folder / f"{case.name}.json"
    card_path.unlink(missing_ok=True)
    image, labels = read_case(dataset, case)
    scan_hash = voxels_hash(image.array)
    image = resample_to_spacing(image, dataset.spec.spacing_mm, order=1)
    labels = resample_to_spacing(labels, dataset.spec.spacing_mm, order=0)
    lesions = find_lesions(labels.array, dataset.lesion_labels, labels.spacing_mm)
    voxels, counts = _draw_label_voxels(labels.array, case.name)
    image_path, label_path, voxels_path = _array_paths(folder, case.name)
    _save(image_path, _as_int16(image.array))
    _save(label_path, labels.array)
    with written_whole(voxels_path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **{str(label): found for label, found in voxels.items()})
    card = {
        **made_from,
        "file_bytes": [path.stat().st_size for path in (image_path, label_path, voxels_path)],
        "scan_sha256": scan_hash,
        "affine": image.affine.tolist(),
        "lesions": [_lesion_entry(lesion) for lesion in lesions],
        "num_label_voxels": counts,
    }
    write_text(card_path, json.dumps(card))


def _draw_label_voxels(
    labels: UInt8[np.ndarray, "x y z"], name: str
) -> tuple[dict[int, Int32[np.ndarray, "_ 3"]], dict[int, int]]:
    seed = list(name.encode())
    voxels, counts = {}, {}
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        # each label in its own box: a hundred labels do not take a hundred passes over the scan
        inside = np.nonzero(labels[box] == label)
        positions = np.ravel_multi_index(
            tuple(along + side.start for along, side in zip(inside, box, strict=True)), labels.shape
        )
        counts[label] = len(positions)
        if len(positions) > _VOXELS_PER_LABEL:
            generator = np.random.default_rng([*seed, label])
            positions = np.sort(generator.choice(positions, _VOXELS_PER_LABEL, replace=False))
        voxels[label] = np.stack(np.unravel_index(positions, labels.shape), axis=1).astype(np.int32)
    return voxels, counts


def _as_int16(hu: Shaped[np.ndarray, "x y z"]) -> Int16[np.ndarray, "x y z"]:
    limits = np.iinfo(np.int16)
    rounded = hu if hu.dtype.kind in "iu" else np.rint(hu)
    return rounded.clip(limits.min, limits.max).astype(np.int16)


def _save(path: Path, array: Shaped[np.ndarray, "x y z"]) -> None:
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def _open_array(path: Path) -> Shaped[np.ndarray, "x y z"]:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _lesion_entry(lesion: LesionInstance) -> dict[str, object]:
    entry: dict[str, object] = asdict(lesion)
    entry["bounding_box"] = [[side.start, side.stop] for side in lesion.bounding_box]
    return entry


def _lesion_of(entry: dict[str, Any]) -> LesionInstance:
    x, y, z = (slice(low, high) for low, high in entry["bounding_box"])
    i, j, k = entry["center_voxel"]
    return LesionInstance(**{**entry, "bounding_box": (x, y, z), "center_voxel": (i, j, k)})


def data_fingerprint(cases: Sequence[CachedCase]) -> str:
    """A short hash of what the cached cases were made from; equal for equal files and settings."""
    return hashlib.sha256("".join(case.key for case in cases).encode()).hexdigest()[:16]
