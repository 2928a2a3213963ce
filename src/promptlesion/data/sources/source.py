"""What every converter gives the writer: the labels and the cases of a folder, listed but not read."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptlesion.data.grouping import grouped
from promptlesion.data.volume import Volume

NUMBERED_SUBJECTS = r"^(S\d+)_"
"""The subject in the names that `numbered_name` makes."""


@dataclass(frozen=True)
class Scan:
    """A case as read: the CT in HU, its label map, how it was acquired, and what the user should know of it.

    `acquisition` and `notes` are written into the dataset folder, so they name no file and no patient.
    """

    image: Volume
    labels: Volume
    acquisition: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceCase:
    """A scan of the source. `read` can be pickled, so that other processes may call it.

    `origin` says whose scan it is and goes into the key file alone, never into the dataset folder. `refusal` is
    why the case cannot be converted, where that shows before its voxels are read. `place` is what messages call it.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], Scan]
    origin: Mapping[str, str]
    refusal: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Source:
    """A folder of scans in some layout. `notes` are for the terminal: what was left out, and why.

    `refusals` are files that belong to no case and that the user must hear of: each stops the conversion, or is left
    out where the user says so. `companions` are files of ours or nnU-Net's that go along unchanged.
    `subjects` says of cases that keep their names whose they are, where that does not show by a pattern.
    """

    layout: str
    labels: dict[str, int]
    cases: tuple[SourceCase, ...]
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    subject_pattern: str | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)
    companions: tuple[Path, ...] = ()


def counted(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Say each remark once, with the first case or file that it is true of and how many more there are."""
    return [
        f"{first}{f' and {len(rest)} more' if rest else ''}: {remark}"
        for remark, (first, *rest) in grouped(remarks).items()
    ]


def numbered_name(subject: int, scan: int) -> str:
    """Return the name of a case whose own name must stay behind: `S0003_01` is the first scan of the third subject."""
    return f"S{subject:04d}_{scan:02d}"


def numbered_cases(subjects: Sequence[str]) -> list[str]:
    """Return the names of cases by whose scans they are, subjects numbered as they come, scans within a subject."""
    number = {subject: index for index, subject in enumerate(dict.fromkeys(subjects), start=1)}
    num_scans: Counter[str] = Counter()
    names = []
    for subject in subjects:
        num_scans[subject] += 1
        names.append(numbered_name(number[subject], num_scans[subject]))
    return names
