"""The folder as a whole: what lies in it, and whether dataset.json, splits and provenance agree with that."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptlesion.check.finding import Finding, listed
from promptlesion.data.dataset import IMAGE_ENDING, image_path
from promptlesion.data.dataset_json import FILE_ENDING, read_labels, read_subject_pattern, read_subjects
from promptlesion.data.grouping import grouped
from promptlesion.data.provenance import PROVENANCE_FILE, read_provenance
from promptlesion.data.sources.preparation import counted_notes, read_cards
from promptlesion.data.spec import DatasetError, DatasetSpec
from promptlesion.data.splits import SPLITS_FILE
from promptlesion.data.subjects import likely_subjects
from promptlesion.data.volume import VolumeError, read_description
from promptlesion.training.atomic import read_json, read_text

_PATTERNS = (r"^(.*\d)[_-]\D*\d+$", r"^(\D*\d+)", r"^([^_-]+)[_-]")
_MOST_SAID = 20
"""To propose, where one gives the subjects that the names make likely."""


@dataclass(frozen=True)
class Folder:
    """What a dataset folder holds, whether or not it fits together."""

    root: Path
    names: tuple[str, ...]
    """Of every case that has a CT or a label map."""
    labels: Mapping[str, int] | None
    """Of dataset.json; None where that cannot be read."""
    subject_pattern: str | None
    """Of dataset.json; that of lesions.toml, where there is one, comes first."""
    subjects: Mapping[str, str]
    """Of dataset.json, by case; as with the pattern."""
    provenance: Mapping[str, Mapping[str, Any]]
    findings: tuple[Finding, ...]


def read_folder(root: Path) -> Folder:
    """List the cases and read dataset.json and the provenance, opening no scan.

    Raises:
        DatasetError: the folder is not there, or nothing in it is of a dataset.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: expected a dataset folder, found none")
    parts = [root / part for part in ("imagesTr", "labelsTr", "dataset.json")]
    if not any(part.exists() for part in parts):
        raise DatasetError(
            f"{root}: expected a dataset folder with imagesTr, labelsTr and dataset.json, found none of them"
        )
    findings: list[Finding] = []
    names: set[str] = set()
    for folder, ending in (("imagesTr", IMAGE_ENDING), ("labelsTr", FILE_ENDING)):
        strangers = []
        for path in sorted((root / folder).glob("*")):
            if path.name.startswith("."):
                continue
            if path.name.endswith(ending):
                names.add(path.name.removesuffix(ending))
            else:
                strangers.append(path.name)
        if strangers:
            findings.append(_stranger(root / folder, strangers, ending))
    if not names:
        message = (
            f"{root}: expected CTs imagesTr/CASE{IMAGE_ENDING} and label maps labelsTr/CASE{FILE_ENDING}, found none"
        )
        findings.append(Finding("error", "no-cases", "", message, "`promptlesion prepare` makes such a folder"))
    content = _dataset_json(root, findings)
    provenance = _provenance(root, findings)
    return Folder(
        root=root,
        names=tuple(sorted(names)),
        labels=content.get("labels"),
        subject_pattern=content.get("subject_pattern"),
        subjects=content.get("subjects", {}),
        provenance=provenance,
        findings=(
            *findings,
            *_of_unknown_source(root, sorted(names - set(provenance))),
            *_counted(root, len(names)),
            *_said_by_prepare(root),
        ),
    )


def subject_findings(folder: Folder, spec: DatasetSpec | None) -> list[Finding]:
    """Say where a subject, or what was made from it, lies on two sides of a split."""
    own = spec.subject_pattern if spec is not None else None
    pattern, known = (own, {}) if own else (folder.subject_pattern, folder.subjects)
    subjects = {name: known.get(name) or _subject(name, pattern, folder.provenance) for name in folder.names}
    return [*_splits(folder, subjects), *(_alike_names(folder) if pattern is None and not known else ())]


def _stranger(folder: Path, names: Sequence[str], ending: str) -> Finding:
    message = f"{folder}: expected files named CASE{ending}, found {listed(names)}"
    is_channel = any(re.search(r"_000[1-9]\.nii\.gz$", name) for name in names)
    remedy = (
        "only one channel a case is supported: take the others away"
        if is_channel
        else "`promptlesion prepare` converts other formats; take away what is no scan"
    )
    return Finding("error" if ending == IMAGE_ENDING else "warning", "file-name", "", message, remedy)


def _dataset_json(root: Path, findings: list[Finding]) -> dict[str, Any]:
    """Return what can be read of dataset.json: its labels, the pattern of subjects, the subjects by case."""
    found: dict[str, Any] = {}
    path, odd_key = root / "dataset.json", "correct it, or remove the key"
    for name, read, remedy in (
        ("labels", read_labels, "see docs/data.md for what it must hold"),
        ("subject_pattern", read_subject_pattern, odd_key),
        ("subjects", read_subjects, odd_key),
    ):
        try:
            found[name] = read(path)
        except (DatasetError, OSError) as error:
            is_known = isinstance(error, DatasetError)
            if not any(finding.code == "dataset-json" for finding in findings):
                message, remedy = (str(error), remedy) if is_known else (f"{path}: {error}", "")
                findings.append(Finding("error", "dataset-json", "", message, remedy))
    return found


def _counted(root: Path, num_cases: int) -> list[Finding]:
    try:
        stated = read_json(root / "dataset.json").get("numTraining", num_cases)
    except (OSError, ValueError):
        return []
    if stated == num_cases:
        return []
    message = f"{root / 'dataset.json'}: expected numTraining to count the {num_cases} cases, found {stated}"
    return [Finding("warning", "num-training", "", message, "nnU-Net refuses the folder: correct numTraining")]


def _provenance(root: Path, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    try:
        return read_provenance(root)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{root / PROVENANCE_FILE}: expected a JSON object a line with `case` and `subject`, found {error!r}"
        findings.append(Finding("error", "provenance", "", message, "write it anew, or remove it for real scans"))
        return {}


def _of_unknown_source(root: Path, names: Sequence[str]) -> list[Finding]:
    """Name the cases that say in their headers that they are synthetic, where nothing tells whose scans they were."""
    found = []
    for name in names:
        try:
            is_synthetic = read_description(image_path(root, name)).startswith("synthetic")
        except (OSError, VolumeError):  # said of the case
            continue
        if is_synthetic:
            message = f"{name}: expected a line in {PROVENANCE_FILE} for a scan whose header says synthetic, found none"
            remedy = "keep synthetic cases in their own folder: their subjects may be held out here"
            found.append(Finding("warning", "synthetic", name, message, remedy))
    return found


def _said_by_prepare(root: Path) -> list[Finding]:
    """Repeat what `prepare` said of cases."""
    try:
        notes = counted_notes(read_cards(root))
    except (OSError, ValueError) as error:
        return [Finding("warning", "prepared", "", str(error), "prepare the dataset again")]
    said = [Finding("note", "prepared", note.split(":")[0].split()[0], note, "") for note in notes[:_MOST_SAID]]
    more = len(notes) - _MOST_SAID
    return said + [Finding("note", "prepared", "", f"prepare noted {more} more things", "")] * (more > 0)


def _subject(name: str, pattern: str | None, provenance: Mapping[str, Mapping[str, Any]]) -> str:
    if name in provenance:
        return str(provenance[name].get("subject", name))
    match = re.search(pattern, name) if pattern is not None else None
    return match.group(1) if match is not None and match.group(1) else name


def _splits(folder: Folder, subjects: Mapping[str, str]) -> list[Finding]:
    path = folder.root / SPLITS_FILE
    if not path.is_file():
        return []
    remedy = "draw the split by subject; removed, the package draws one itself"
    try:
        folds = json.loads(read_text(path))
        parts = [{part: [str(name) for name in fold[part]] for part in fold} for fold in folds]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        message = f"{path}: expected a list of folds with `train` and `val`, found {error!r}"
        return [Finding("error", "splits", "", message, remedy)]
    found: dict[tuple[str, str], Finding] = {}
    for number, fold in enumerate(parts):
        for finding in _fold(folder, subjects, path, number, fold):
            found.setdefault((finding.code, finding.case), finding)
    return list(found.values())


def _fold(
    folder: Folder, subjects: Mapping[str, str], path: Path, number: int, fold: Mapping[str, Sequence[str]]
) -> list[Finding]:
    found = []
    remedy = "draw the split by subject; removed, the package draws one itself"
    unknown = sorted({name for names in fold.values() for name in names} - set(folder.names))
    if unknown:
        message = f"{path}, fold {number}: expected cases of this folder, found {listed(unknown)}, which is not here"
        found.append(Finding("error", "splits-unknown", "", message, "add the case or take it out of the split"))
    left = sorted(set(folder.names) - {name for names in fold.values() for name in names})
    if left:
        message = f"{path}, fold {number}: expected every case in a part, found none for {listed(left)}"
        found.append(Finding("note", "splits-left-out", "", message, "such a case is never used"))
    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, names in fold.items():
        for name in names:
            sides[subjects.get(name, name)][part].append(name)
    for subject, by_part in sorted(sides.items()):
        if len(by_part) < 2:
            continue
        where = " and ".join(f"{listed(names, limit=3)} in {part!r}" for part, names in by_part.items())
        case = next(iter(by_part.values()))[0]
        held_out = [name for part in by_part if part != "train" for name in by_part[part]]
        leaking = [name for name in by_part.get("train", []) if name in folder.provenance]
        if leaking and held_out:
            source = str(folder.provenance[leaking[0]].get("source", subject))
            message = (
                f"{path}, fold {number}: expected synthetic training cases made from training subjects, found "
                f"{listed(leaking)} made from {source} of subject {subject!r}, which has {where}"
            )
            found.append(Finding("error", "synthetic-leak", leaking[0], message, "paint into training scans only"))
        else:
            message = f"{path}, fold {number}: expected every subject in one part, found {subject!r} with {where}"
            found.append(Finding("error", "subject-leak", case, message, remedy))
    return found


def _alike_names(folder: Folder) -> list[Finding]:
    """Say where case names look like several scans of one subject, as nothing says whose they are."""
    names = [name for name in folder.names if name not in folder.provenance]
    groups = grouped((subject, name) for name, subject in likely_subjects(names).items())
    several = [group for group in groups.values() if len(group) > 1]
    if len(groups) < 2 or not several:
        return []
    message = (
        f"{listed(several[0], limit=3)} look like scans of one subject, and {len(several) - 1} more groups do: every "
        "case counts as a subject of its own, so they may land on both sides of the split"
    )
    fitting = [pattern for pattern in _PATTERNS if _groups_by(pattern, names) == sorted(groups.values())]
    example = f", such as '{fitting[0]}'" if fitting else ""
    remedy = f"if they are, add to lesions.toml: [subjects] pattern = a regular expression with a group{example}"
    return [Finding("warning", "subjects-alike", several[0][0], message, remedy)]


def _groups_by(pattern: str, names: Sequence[str]) -> list[list[str]]:
    return sorted(grouped((_subject(name, pattern, {}), name) for name in names).values())
