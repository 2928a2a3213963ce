"""Whose scan a file is: as the user says, by a pattern or a table, or else by what names have in common."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from promptlesion.data.grouping import grouped
from promptlesion.data.spec import DatasetError
from promptlesion.training.atomic import read_text

SubjectsOf = Callable[[Sequence[str]], dict[str, str]]
"""From the names of scans, without their endings, to the subject of each."""

_KNOWN = re.compile(r"(?:^|[^A-Za-z0-9])(sub-[A-Za-z0-9]+|TCGA-\w\w-\w{4})(?=[^A-Za-z0-9]|$)")
_DATE = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_SCAN_WORD = re.compile(
    r"(ses|session|scan|visit|phase|run|acq|tp|time|timepoint|baseline|followup|fu|pre|post|art|arterial|ven|venous|"
    r"pv|portal|delayed|late|native|nc|ncct|cect|contrast|plain)\d*",
    re.I,
)
_GROUP_WORD = re.compile(r"(fold|batch|cent(er|re)|site|hospital|part|set|cohort|task|dataset)\d*", re.I)
_HEADINGS = {"case", "file", "filename", "file_name", "image", "name", "scan"}


def likely_subjects(names: Sequence[str]) -> dict[str, str]:
    """Return the likely subject of each scan: `pat00_art` and `pat00_ven` are one subject's, `case_001` is its own.

    A subject is BIDS's `sub-XX` or the TCGA's, or else the name as far as its first number, without dates and words
    for a scan, and without what all names begin with. Rather two subjects are taken for one than one for two.
    """
    tokens = {name: _tokens(name) for name in names}
    common = _num_common(list(tokens.values()))
    telling = {name: parts[common:] for name, parts in tokens.items()}
    if _are_counted(list(telling.values())):
        telling = {name: parts[:-1] for name, parts in telling.items()}
    return {name: _first_group(_KNOWN, name) or _likely(parts, name) for name, parts in telling.items()}


def said_subjects(subjects: Mapping[str, str]) -> str:
    """Say what was assumed of whose scans there are, from scans' names to subjects."""
    groups = grouped((subject, name) for name, subject in subjects.items())
    several = [names for names in groups.values() if len(names) > 1]
    if not several:
        return f"every scan counts as another subject's ({len(subjects)}); --subjects PATTERN or CSV says otherwise"
    return (
        f"{len(subjects)} scans count as those of {len(groups)} subjects by their names, "
        f"{' and '.join(several[0][:2])} as one's; --subjects PATTERN or CSV says otherwise"
    )


def subjects_by(text: str) -> SubjectsOf:
    """Return what `--subjects` asks for: a CSV file of names and subjects, or a pattern whose first group is a subject.

    Raises `DatasetError` for a file that is not there and for a pattern that is none.
    """
    path = Path(text)
    if path.is_file():
        table = _table(path)
        return _looked_up(table.get, f"--subjects {path}: expected a line for every scan, found none for")
    if path.suffix.lower() == ".csv":
        raise DatasetError(f"--subjects {text}: expected a CSV file, found none")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DatasetError(
            f"--subjects {text}: expected a CSV file or a regular expression, found neither ({error})"
        ) from error
    if not pattern.groups:
        raise DatasetError(f"--subjects {text}: expected a group that holds the subject, as in '^(pat[0-9]+)_'")
    return _looked_up(
        lambda name: _first_group(pattern, name), f"--subjects: expected names that {text!r} matches, found"
    )


def _looked_up(find: Callable[[str], str | None], complaint: str) -> SubjectsOf:
    def subjects(names: Sequence[str]) -> dict[str, str]:
        found = {name: find(name) for name in names}
        lacking = [name for name in names if not found[name]]
        if lacking:
            raise DatasetError(f"{complaint} {lacking[0]}")
        return {name: str(subject) for name, subject in found.items()}

    return subjects


def _first_group(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    return match.group(1) if match else None


def _table(path: Path) -> dict[str, str]:
    """Read a table of names, with or without endings and heading, and subjects; commas, semicolons or tabs between."""
    lines = read_text(path).splitlines()
    delimiter = next((sign for sign in (",", ";", "\t") if lines and sign in lines[0]), ",")
    table: dict[str, str] = {}
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or (number == 1 and cells[0].lower() in _HEADINGS):
            continue
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise DatasetError(f"--subjects {path}, line {number}: expected a name and a subject, found {row}")
        name = _without_ending(cells[0])
        if table.setdefault(name, cells[1]) != cells[1]:
            raise DatasetError(f"--subjects {path}, line {number}: expected one subject for {name}, found two")
    return table


def _without_ending(name: str) -> str:
    return re.sub(r"\.(nii\.gz|nii|seg\.nrrd|nrrd|nhdr|mha|mhd)$", "", Path(name).name, flags=re.I)


def _tokens(name: str) -> list[str]:
    found = [token for token in re.split(r"[-_ ]+", _DATE.sub("", name)) if token.strip(".")]
    telling = [token for token in found if not _SCAN_WORD.fullmatch(token)]
    return telling or found or [name]


def _num_common(names: Sequence[Sequence[str]]) -> int:
    """Count the parts that all names begin with; none unless a number follows in each."""
    columns = zip(*names, strict=False)
    num_common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    follows = all(any(_has_number(token) for token in parts[num_common:]) for parts in names)
    return num_common if len(names) > 1 and follows else 0


def _are_counted(names: Sequence[Sequence[str]]) -> bool:
    """Whether names are words and then a number that counts within them: `anna_1`, `anna_2`, `berta_1`.

    There are then no fewer words than numbers; of `liver_001` to `liver_130` and `lung_001` to `lung_060` there are.
    """
    is_form = all(len(parts) > 1 and parts[-1].isdigit() and not any(map(_has_number, parts[:-1])) for parts in names)
    words, numbers = {tuple(parts[:-1]) for parts in names}, {parts[-1] for parts in names}
    return is_form and len(words) >= len(numbers)


def _likely(parts: Sequence[str], name: str) -> str:
    for index, token in enumerate(parts):
        if _has_number(token) and not _GROUP_WORD.fullmatch(token):
            return "_".join(parts[: index + 1])
    return "_".join(parts) or name


def _has_number(token: str) -> bool:
    return any(sign.isdigit() for sign in token)
