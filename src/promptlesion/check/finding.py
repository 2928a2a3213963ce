"""What the check has to say about a file, a case or the dataset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from promptlesion.data.grouping import grouped

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Worst first. An error would spoil or stop a run; a warning may; a note is good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing found; `case` is empty where it concerns the whole dataset."""

    severity: Severity
    code: str
    """A stable word to filter by, `flipped` say."""
    case: str
    message: str
    """Names the file or case, what was expected, and what was found."""
    remedy: str
    """What to do about it; empty where there is nothing to do."""


def worst(findings: Iterable[Finding]) -> Severity | None:
    """Return the worst severity that occurs."""
    occurring = {finding.severity for finding in findings}
    return next((severity for severity in SEVERITIES if severity in occurring), None)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity, then the dataset's before the cases', then by case."""
    return sorted(findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding.case))


def by_kind(findings: Iterable[Finding]) -> dict[tuple[Severity, str], list[Finding]]:
    """Put the findings of one severity and code together, in the order in which the kinds come."""
    return grouped(((finding.severity, finding.code), finding) for finding in findings)


def in_mm(sides: Sequence[float] | Float[np.ndarray, " side"]) -> str:
    """Write the sides of a voxel."""
    return " x ".join(f"{side:.3g}" for side in sides)


def listed(items: Iterable[str], *, limit: int = 6) -> str:
    """Join some words with commas, no more than `limit` of them."""
    words = list(items)
    return ", ".join(words[:limit]) + (f" and {len(words) - limit} more" if len(words) > limit else "")
