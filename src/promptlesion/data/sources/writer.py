"""A source as a dataset folder: case by case, resumable, and never half a case."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from promptlesion.data.case_check import check_hounsfield, check_same_grid
from promptlesion.data.dataset import image_path, label_path, write_case, write_dataset_json
from promptlesion.data.processes import run_in_processes
from promptlesion.data.sources.label_map import present_values, whole_labels
from promptlesion.data.sources.source import Source, SourceCase
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import Volume
from promptlesion.training.atomic import write_json, write_text, written_whole

ACQUISITION_FILE = "acquisition.json"
_CARDS = "prepared"
_VERSION = 1
_GRID_TOLERANCE_VOXELS = 0.1
_SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Conversion:
    """What came of a source: cases written now, cases kept from before, refused ones with their reason, notes."""

    num_written: int
    num_kept: int
    refused: tuple[str, ...]
    notes: tuple[str, ...]


def write_source(
    source: Source,
    out: Path,
    *,
    num_workers: int = 1,
    skips_refused: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write a source as a dataset folder; cases already there from the same files are kept.

    A case that cannot be converted stops the whole with a message that names it, or is left out where
    `skips_refused`. `dataset.json` comes last, so a folder that has it is whole. Raises `DatasetError` also where
    `out` holds other cases.
    """
    _check_folder(source, out)
    refused = [case.refusal for case in source.cases if case.refusal is not None]
    if refused and not skips_refused:
        raise DatasetError("\n".join(refused))
    cases = [case for case in source.cases if case.refusal is None]
    missing = [case for case in cases if not _is_written(source, case, out)]
    num_kept = len(cases) - len(missing)
    if on_progress:
        on_progress(num_kept, len(cases))
    if missing:
        (out / "dataset.json").unlink(missing_ok=True)
    write = partial(_write_one, source, out, skips_refused)
    for num_done, refusal in enumerate(run_in_processes(write, missing, num_workers), num_kept + 1):
        refused += [refusal] if refusal else []
        if on_progress:
            on_progress(num_done, len(cases))
    written = [case for case in cases if image_path(out, case.name).is_file()]
    if not written:
        raise DatasetError("\n".join(["expected at least one case that can be converted, found none", *refused]))
    cards = {case.name: _read_card(out, case.name) or {} for case in written}
    _write_whole(source, out, cards)
    return Conversion(
        num_written=len(written) - num_kept,
        num_kept=num_kept,
        refused=tuple(refused),
        notes=tuple(_counted(cards)),
    )


def write_key(source: Source, path: Path, *, out: Path) -> None:
    """Write which case is whose scan, as CSV; anywhere but into the dataset folder, which is to be given away."""
    if path.resolve().is_relative_to(out.resolve()):
        raise DatasetError(f"--key {path}: expected a file outside the dataset folder {out}, found one inside it")
    fields = list(dict.fromkeys(key for case in source.cases for key in case.origin))
    text = StringIO()
    table = csv.DictWriter(text, ["case", *fields], lineterminator="\n")
    table.writeheader()
    table.writerows({"case": case.name, **case.origin} for case in source.cases)
    write_text(path, text.getvalue())


def _write_one(source: Source, out: Path, skips_refused: bool, case: SourceCase) -> str | None:
    """Convert a case; returns why it was left out, if it was."""
    card_path = out / _CARDS / f"{case.name}.json"
    # without its card a case is not there, whatever happens between here and the end
    card_path.unlink(missing_ok=True)
    image_path(out, case.name).unlink(missing_ok=True)
    try:
        scan = case.read()
        image = _as_hounsfield(_place(case), scan.image)
        labels = _on_the_grid_of(image, scan.labels, _place(case))
        labels = labels.with_array(_known_labels(_place(case), scan.labels, source))
    except ValueError as error:
        if skips_refused:
            label_path(out, case.name).unlink(missing_ok=True)
            return str(error)
        raise
    write_case(out, case.name, image, labels)
    made_from = {"files": _files_key(case), "settings": _settings_key(source)}
    write_json(card_path, {**made_from, "acquisition": dict(scan.acquisition), "notes": list(scan.notes)})
    return None


def _place(case: SourceCase) -> str:
    return case.origin.get("file") or case.origin.get("folder") or case.name


def _as_hounsfield(place: str, image: Volume) -> Volume:
    """The CT as int16 where its values are whole, else as float32; refuses what is no CT or lies on a sheared grid."""
    check_hounsfield(place, image.array)
    directions = image.affine[:3, :3] / np.array(image.spacing_mm)
    shear = np.abs(directions.T @ directions - np.eye(3)).max()
    if shear > _SHEAR_TOLERANCE:
        raise DatasetError(
            f"{place}: expected axes at right angles, which nnU-Net and ITK insist on, found a sheared affine "
            f"(cosine {shear:.3f} between two axes); resample the scan"
        )
    array: Shaped[np.ndarray, "x y z"] = image.array
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        return image.with_array(array.astype(np.float32, copy=False))
    return image.with_array(array.astype(np.int16, copy=False))


def _on_the_grid_of(image: Volume, labels: Volume, place: str) -> Volume:
    """The CT's geometry, where the label map's is the same but for rounding in its header."""
    if labels.shape == image.shape:
        corners = np.array(np.meshgrid(*((0.0, size - 1.0) for size in image.shape))).reshape(3, -1)
        apart = labels.affine - image.affine
        apart_mm = np.linalg.norm(apart[:3, :3] @ corners + apart[:3, 3:], axis=0).max()
        if apart_mm <= _GRID_TOLERANCE_VOXELS * min(image.spacing_mm):
            return image
    check_same_grid(place, image, labels)
    return image


def _known_labels(place: str, labels: Volume, source: Source) -> UInt8[np.ndarray, "x y z"]:
    values = whole_labels(place, labels.array)
    unknown = sorted(set(present_values(values)) - set(source.labels.values()))
    if unknown:
        hint = "; name them with --label NAME=VALUE" if source.layout == "folders" else ""
        raise DatasetError(f"{place}: expected the label values of {source.labels}, found {unknown}{hint}")
    return values


def _check_folder(source: Source, out: Path) -> None:
    if out.is_file():
        raise DatasetError(f"--out {out}: expected a folder, found a file")
    names = {case.name for case in source.cases}
    if len(names) < len(source.cases):
        twice = [name for name, count in Counter(case.name for case in source.cases).items() if count > 1]
        raise DatasetError(f"expected a name of its own for every case, found {twice[0]} more than once")
    present = {path.name.removesuffix("_0000.nii.gz") for path in (out / "imagesTr").glob("*_0000.nii.gz")}
    known = {case.name: case for case in source.cases if case.name in present}
    if present and not any((_read_card(out, name) or {}).get("files") == _files_key(known[name]) for name in known):
        raise DatasetError(
            f"--out {out}: expected an empty folder or one that `prepare` wrote from these files, found "
            f"{len(present)} other case(s); choose another folder, or delete this one"
        )
    surplus = sorted(present - set(known))
    if surplus:
        raise DatasetError(
            f"--out {out}: expected cases of this source only, found {len(surplus)} more ({surplus[0]}, …); "
            "choose another folder, or delete this one"
        )


def _is_written(source: Source, case: SourceCase, out: Path) -> bool:
    card = _read_card(out, case.name) or {}
    is_current = (card.get("files"), card.get("settings")) == (_files_key(case), _settings_key(source))
    return is_current and all(path.is_file() for path in (image_path(out, case.name), label_path(out, case.name)))


def _read_card(out: Path, name: str) -> dict[str, Any] | None:
    try:
        card = json.loads((out / _CARDS / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) else None


def _files_key(case: SourceCase) -> str:
    """Identifies the files a case is made from; of their sizes and times, not of their names."""
    states = [path.stat() for path in case.files]
    return _hash([(state.st_size, state.st_mtime_ns) for state in states])


def _settings_key(source: Source) -> str:
    return _hash([_VERSION, source.layout, source.labels])


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _write_whole(source: Source, out: Path, cards: dict[str, dict[str, Any]]) -> None:
    acquisition = {name: card["acquisition"] for name, card in cards.items() if card.get("acquisition")}
    if acquisition:
        write_json(out / ACQUISITION_FILE, acquisition)
    for path in source.companions:
        with written_whole(out / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
    extra: dict[str, object] = {"description": f"prepared by PromptLesion from the layout {source.layout}"}
    if source.subject_pattern is not None:
        extra["subject_pattern"] = source.subject_pattern
    write_dataset_json(out, labels=source.labels, num_training=len(cards), extra=extra)


def _counted(cards: dict[str, dict[str, Any]]) -> list[str]:
    """The cases' notes, each once with the first case and how many more it is true of."""
    names: dict[str, list[str]] = {}
    for name, card in cards.items():
        for note in card.get("notes", ()):
            names.setdefault(note, []).append(name)
    return [f"{first}{f' and {len(rest)} more' if rest else ''}: {note}" for note, (first, *rest) in names.items()]
