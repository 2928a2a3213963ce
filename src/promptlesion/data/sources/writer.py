"""A source as a dataset folder: case by case, resumable, and never half a case."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from promptlesion.data.case_check import check_hounsfield, check_spacing, label_values, on_the_grid_of, whole_labels
from promptlesion.data.content import content_of
from promptlesion.data.dataset import IMAGE_ENDING, image_path, label_path, write_case, write_dataset_json
from promptlesion.data.sources.preparation import (
    card_path,
    counted_notes,
    place_of,
    read_card,
    read_cards,
    report_path,
    write_report,
)
from promptlesion.data.sources.source import Source, SourceCase
from promptlesion.data.spec import DatasetError
from promptlesion.data.splits import SPLITS_FILE, split_names
from promptlesion.data.volume import SHEAR_TOLERANCE, Volume
from promptlesion.training.atomic import read_json, write_json, write_text, written_whole
from promptlesion.training.locks import alone_in
from promptlesion.training.pool import run_in_processes

ACQUISITION_FILE = "acquisition.json"
_VERSION = 2
_SHOWN_REFUSALS = 10


@dataclass(frozen=True)
class Conversion:
    """What came of a source: cases written now, cases kept from before, refused ones with their reason, notes."""

    labels: tuple[str, ...]
    report: Path
    """What was kept, joined, assumed and left out, a line each."""
    num_written: int
    num_kept: int
    refused: tuple[str, ...]
    notes: tuple[str, ...]


def check_apart(folder: Path, out: Path) -> None:
    """Refuse a dataset folder inside the folder of scans, or the other way round.

    Raises:
        DatasetError: one lies inside the other.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"--out {out}: expected a folder outside {folder}, found one inside it")
    if folder.resolve().is_relative_to(out.resolve()):
        raise DatasetError(f"--out {out}: expected a folder of its own, to be given away, found {folder} inside it")


def write_source(
    source: Source,
    out: Path,
    *,
    key: Path | None = None,
    num_workers: int = 1,
    skips_refused: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write a source as a dataset folder; cases already there from the same files are kept.

    A case or file that cannot be converted stops the whole with a message that names it, or is left out where
    `skips_refused`. `dataset.json` comes last, so a folder that has it is whole; after it, outside the folder, the
    report, and `key`, a CSV file that says which case is whose scan. Of two calls at once one waits. Raises
    `DatasetError` also where `out` holds anything else.
    """
    if out.is_file():
        raise DatasetError(f"--out {out}: expected a folder, found a file")
    if key is not None and key.resolve().is_relative_to(out.resolve()):
        raise DatasetError(f"--key {key}: expected a file outside the dataset folder {out}, found one inside it")
    refused = [*source.refusals, *(case.refusal for case in source.cases if case.refusal is not None)]
    if refused and not skips_refused:
        raise DatasetError(_listed(refused))
    with alone_in(out):
        return _write_alone(source, out, refused, key, num_workers, skips_refused, on_progress)


def _write_alone(
    source: Source,
    out: Path,
    refused: list[str],
    key: Path | None,
    num_workers: int,
    skips_refused: bool,
    on_progress: Callable[[int, int], None] | None,
) -> Conversion:
    """Write what is missing of a source, where nobody else is writing."""
    _check_folder(source, out)
    cases = [case for case in source.cases if case.refusal is None]
    missing = [case for case in cases if not _is_written(source, case, out)]
    num_kept = len(cases) - len(missing)
    stale = [case for case in source.cases if case.refusal is not None and image_path(out, case.name).is_file()]
    if on_progress:
        on_progress(num_kept, len(cases))
    whole = out / "dataset.json"
    if missing or stale or (whole.is_file() and read_json(whole).get("subjects", {}) != source.subjects):
        whole.unlink(missing_ok=True)
    for case in stale:
        _remove(out, case.name)
    write = partial(_write_one, source, out, skips_refused)
    with closing(run_in_processes(write, missing, num_workers=num_workers, name_of=place_of)) as refusals:
        for num_done, refusal in enumerate(refusals, num_kept + 1):
            refused += [refusal] if refusal else []
            if on_progress:
                on_progress(num_done, len(cases))
    written = [case for case in cases if image_path(out, case.name).is_file()]
    if not written:
        raise DatasetError(f"expected at least one case that can be converted, found none\n{_listed(refused)}")
    cards = {case.name: read_card(out, case.name) for case in written}
    if not whole.is_file():
        _write_whole(source, out, cards)
    if key is not None:
        _write_key(source, key)
    of_split = _left_in_split(source, set(cards))
    write_report(source, out, cards=cards, refused=refused, said=of_split)
    return Conversion(
        labels=tuple(source.labels),
        report=report_path(out),
        num_written=len(written) - num_kept,
        num_kept=num_kept,
        refused=tuple(refused),
        notes=(*counted_notes(cards), *of_split),
    )


def _listed(refused: Sequence[str]) -> str:
    more = [f"and {len(refused) - _SHOWN_REFUSALS} more such cases"] if len(refused) > _SHOWN_REFUSALS else []
    return "\n".join([*refused[:_SHOWN_REFUSALS], *more])


def _write_key(source: Source, path: Path) -> None:
    """Write which case is whose scan, as CSV."""
    fields = list(dict.fromkeys(key for case in source.cases for key in case.origin))
    text = StringIO()
    table = csv.DictWriter(text, ["case", *fields], lineterminator="\n")
    table.writeheader()
    table.writerows({"case": case.name, **case.origin} for case in source.cases)
    write_text(path, text.getvalue())


def _write_one(source: Source, out: Path, skips_refused: bool, case: SourceCase) -> str | None:
    """Convert a case; returns why it was left out, if it was."""
    content = content_of(case.files, read_card(out, case.name))
    _remove(out, case.name)
    try:
        scan = case.read()
        image = _as_hounsfield(place_of(case), scan.image)
        labels = on_the_grid_of(place_of(case), image, scan.labels)
        labels = labels.with_array(_known_labels(case, labels, source))
    except ValueError as error:
        if skips_refused:
            return str(error)
        raise
    except MemoryError as error:
        raise MemoryError(f"{place_of(case)}: {error}") from error
    made_from = {**content, "settings": _settings_key(source)}
    card = {**made_from, "acquisition": dict(scan.acquisition), "notes": list(scan.notes)}
    write_json(card_path(out, case.name), card)
    write_case(out, case.name, image, labels)
    return None


def _remove(out: Path, name: str) -> None:
    """Remove what an earlier run wrote of a case; its CT first, as without it a case is not there."""
    for path in (image_path(out, name), label_path(out, name), card_path(out, name)):
        path.unlink(missing_ok=True)


def _as_hounsfield(place: str, image: Volume) -> Volume:
    """The CT as int16 where its values are whole, else as float32; refuses what is no CT or lies on a sheared grid."""
    check_spacing(place, image)
    check_hounsfield(place, image.array)
    if image.shear > SHEAR_TOLERANCE:
        raise DatasetError(
            f"{place}: expected axes at right angles, which nnU-Net and ITK insist on, found a sheared affine "
            f"(cosine {image.shear:.3g} between two axes); resample the scan"
        )
    array: Shaped[np.ndarray, "x y z"] = image.array
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        return image.with_array(array.astype(np.float32, copy=False))
    return image.with_array(array.astype(np.int16, copy=False))


def _known_labels(case: SourceCase, labels: Volume, source: Source) -> UInt8[np.ndarray, "x y z"]:
    place = case.origin.get("labels") or place_of(case)
    values = whole_labels(place, labels.array)
    unknown = sorted(set(label_values(values)) - set(source.labels.values()))
    if unknown:
        hint = "; name them with --label NAME=VALUE" if source.layout == "folders" else ""
        raise DatasetError(f"{place}: expected the label values of {source.labels}, found {unknown}{hint}")
    return values


def _check_folder(source: Source, out: Path) -> None:
    names = {case.name for case in source.cases}
    if len(names) < len(source.cases):
        twice = [name for name, count in Counter(case.name for case in source.cases).items() if count > 1]
        raise DatasetError(f"expected a name of its own for every case, found {twice[0]} more than once")
    images = [path.name for path in (out / "imagesTr").glob("*") if not path.name.startswith(".")]
    present = {name.removesuffix(IMAGE_ENDING) for name in images}
    made_from = {card.get("files") for card in read_cards(out).values()}
    is_ours = any(_files_of(case, read_card(out, case.name)) in made_from for case in source.cases if case.files)
    if not is_ours and (present or (out / "dataset.json").exists()):
        found = f"{len(present)} other case(s)" if present else "the dataset.json of another dataset"
        raise DatasetError(
            f"--out {out}: expected an empty folder or one that `prepare` wrote from these files, found {found}; "
            "choose another folder, or delete this one"
        )
    surplus = sorted(present - names)
    if surplus:
        raise DatasetError(
            f"--out {out}: expected cases of this source only, found {len(surplus)} more ({surplus[0]}, …); "
            "choose another folder, or delete this one"
        )


def _is_written(source: Source, case: SourceCase, out: Path) -> bool:
    card = read_card(out, case.name)
    is_current = card.get("settings") == _settings_key(source) and card.get("files") == _files_of(case, card)
    return is_current and all(path.is_file() for path in (image_path(out, case.name), label_path(out, case.name)))


def _files_of(case: SourceCase, card: dict[str, Any]) -> str:
    """Identifies the files a case is made from, by what they hold; their names do not count."""
    return content_of(case.files, card)["files"]


def _settings_key(source: Source) -> str:
    return hashlib.sha256(json.dumps([_VERSION, source.layout, source.labels]).encode()).hexdigest()


def _write_whole(source: Source, out: Path, cards: dict[str, dict[str, Any]]) -> None:
    acquisition = {name: card["acquisition"] for name, card in cards.items() if card.get("acquisition")}
    if acquisition:
        write_json(out / ACQUISITION_FILE, acquisition)
    for path in source.companions:
        if not (out / path.name).is_file():  # somebody may have changed it since
            with written_whole(out / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())
    extra: dict[str, object] = {"description": f"prepared by PromptLesion from the layout {source.layout}"}
    if source.subject_pattern is not None:
        extra["subject_pattern"] = source.subject_pattern
    if source.subjects:
        extra["subjects"] = dict(source.subjects)
    write_dataset_json(out, labels=source.labels, num_training=len(cards), extra=extra)


def _left_in_split(source: Source, written: set[str]) -> list[str]:
    """Say which cases a split that goes along names and the dataset lacks; training would refuse it."""
    paths = [path for path in source.companions if path.name == SPLITS_FILE]
    lacking = sorted({name for path in paths for name in split_names(path)} - written)
    return [f"{SPLITS_FILE} names {', '.join(lacking)}, left out here: take it out of there too"] if lacking else []
