"""What only shows beside the other cases: the odd one out, the same scan twice, a label that nobody has."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptlesion.check.facts import CaseFacts
from promptlesion.check.finding import Finding, Severity, in_mm, listed
from promptlesion.check.mirror import AXIS_SETS, named_axes
from promptlesion.data.grouping import grouped

_FEWEST_TO_COMPARE = 5
_CONSISTENT_SHARE = 0.8
_LEAST_LIKENESS = 0.35
"""Measured: of 48 phantoms flipped in all seven ways, 98 in 100 are below its negative, and none as it is."""
_SPACING_FACTOR = 1.8
_SIDE_OF_BODY = {"liver": 1, "gallbladder": 1, "gall_bladder": 1, "spleen": -1, "stomach": -1}
"""Organs that lie to the right (1) or left (-1) of the body's middle."""
_SMALLEST_SIDE_SHIFT = 0.06


def comparison_findings(
    cases: Sequence[CaseFacts], labels: Mapping[str, int], *, grid_spacing_mm: tuple[float, float, float] | None
) -> list[Finding]:
    """Compare the cases with one another."""
    flipped = {**_flipped_by_neighbours(cases), **_flipped_by_names(cases, labels)}
    for case in cases:  # where the label map alone is flipped, its structures say nothing about the scan
        if any(finding.code == "flipped-labels" for finding in case.findings):
            flipped.pop(case.name, None)
    return [
        *flipped.values(),
        *_orientations(cases, flipped),
        *_spacings(cases, grid_spacing_mm),
        *_duplicates(cases),
        *_absent_labels(cases, labels),
    ]


def _flipped_by_neighbours(cases: Sequence[CaseFacts]) -> dict[str, Finding]:
    """Find the scans that look like the others only in a mirror.

    Every scan is compared with the mean of the others on a small grid. Nothing is said where the others do not agree
    among themselves on which side is which.
    """
    shown = [case for case in cases if case.coarse is not None]
    if len(shown) < _FEWEST_TO_COMPARE:
        return {}
    stack = np.stack([case.coarse for case in shown if case.coarse is not None])
    total = stack.sum(axis=0)
    views = [_in_mirrors(one, (total - one) / (len(shown) - 1)) for one in stack]
    if np.mean([view.gain < 0 for view in views]) < _CONSISTENT_SHARE:
        return {}
    found = {}
    for case, view in zip(shown, views, strict=True):
        if view.gain > 0 and view.likeness < -_LEAST_LIKENESS:
            name = named_axes(view.axes)
            message = (
                f"{case.name}: expected a body that lies as in the other {len(shown) - 1} cases, found one that does "
                f"only once it is flipped {name}: the scan is flipped"
            )
            found[case.name] = Finding("error", "flipped", case.name, message, _FLIP_REMEDY)
    return found


@dataclass(frozen=True)
class _Mirrored:
    """The mirror image of a scan that looks most like the others."""

    axes: tuple[int, ...]
    gain: float
    """By how much its correlation with the others is above that of the scan as it is."""
    likeness: float
    """Correlation, as the scan is, of what tells it from that mirror image; -1: it is that mirror image."""


def _in_mirrors(one: np.ndarray, others: np.ndarray) -> _Mirrored:
    mirrored = [_correlation(np.flip(one, axes), others) for axes in AXIS_SETS]
    best = int(np.argmax(mirrored))
    axes = AXIS_SETS[best]
    likeness = _correlation(one - np.flip(one, axes), others - np.flip(others, axes))
    return _Mirrored(axes, mirrored[best] - _correlation(one, others), likeness)


_FLIP_REMEDY = "its affine does not say how it lies: export it anew, or correct the affine of CT and label map"


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return that of two arrays of mean 0."""
    return float((one * other).sum() / max(np.sqrt((one * one).sum() * (other * other).sum()), 1e-12))


def _flipped_by_names(cases: Sequence[CaseFacts], labels: Mapping[str, int]) -> dict[str, Finding]:
    """Find cases whose left structures lie right of the right ones, or whose liver lies left."""
    pairs = [
        (name, name.replace("left", "right"))
        for name in labels
        if "left" in name and name.replace("left", "right") in labels
    ]
    found = {}
    for case in cases:
        reasons = []
        for left, right in pairs:
            places = [case.labels[labels[name]].place[0] for name in (left, right) if labels[name] in case.labels]
            if len(places) == 2 and places[0] > places[1]:
                reasons.append(f"{left} to the right of {right}")
        for name, side in _SIDE_OF_BODY.items():
            if name in labels and labels[name] in case.labels:
                place = case.labels[labels[name]].place[0]
                if place * side < -_SMALLEST_SIDE_SHIFT:
                    reasons.append(f"the {name} on the {'left' if side > 0 else 'right'}")
        if reasons:
            message = (
                f"{case.name}: expected left and right as in a body, found {listed(reasons)}: the case is flipped "
                "left-right"
            )
            found[case.name] = Finding("error", "flipped", case.name, message, _FLIP_REMEDY)
    return found


def _orientations(cases: Sequence[CaseFacts], flipped: Mapping[str, Finding]) -> list[Finding]:
    """Name the files stored in another orientation than most; harmless where the affine tells the truth."""
    codes = Counter(case.axis_codes for case in cases if case.axis_codes)
    if len(codes) < 2:
        return []
    usual, number = codes.most_common(1)[0]
    odd = [case for case in cases if case.axis_codes and case.axis_codes != usual]
    if number < 0.7 * codes.total():
        found = ", ".join(f"{code} in {count}" for code, count in codes.most_common())
        message = f"the scans are stored in several orientations ({found} cases); reading turns all of them to RAS+"
        return [Finding("note", "orientation", "", message, "")]
    findings = []
    can_compare = sum(case.coarse is not None for case in cases) >= _FEWEST_TO_COMPARE
    for case in odd:
        severity: Severity = "note" if can_compare and case.name not in flipped else "warning"
        message = (
            f"{case.name}: expected the orientation of the other {number} cases, {usual}, found {case.axis_codes}: it "
            "is stored flipped or turned, and reading undoes what its affine says"
        )
        remedy = "" if severity == "note" else "make sure that the affine is right: look at the picture"
        findings.append(Finding(severity, "orientation", case.name, message, remedy))
    return findings


def _spacings(cases: Sequence[CaseFacts], grid_spacing_mm: tuple[float, float, float] | None) -> list[Finding]:
    shown = [case for case in cases if case.spacing_mm is not None]
    if not shown:
        return []
    spacings = np.array([case.spacing_mm for case in shown])
    usual = np.median(spacings, axis=0)
    found = []
    for case, spacing in zip(shown, spacings, strict=True):
        ratio = spacing / usual
        if len(shown) >= 3 and (ratio.max() > _SPACING_FACTOR or ratio.min() < 1 / _SPACING_FACTOR):
            message = (
                f"{case.name}: expected voxels of about {in_mm(usual)} mm, the median of {len(shown)} cases, found "
                f"{in_mm(spacing)} mm"
            )
            remedy = "is the spacing right? All scans are brought to spacing_mm, so a right one does no harm"
            found.append(Finding("warning", "spacing-outlier", case.name, message, remedy))
    if grid_spacing_mm is not None and (usual > 2.5 * np.array(grid_spacing_mm)).any():
        message = (
            f"expected spacing_mm near what was scanned, a median of {in_mm(usual)} mm, found "
            f"{in_mm(grid_spacing_mm)} mm in lesions.toml: most voxels will be interpolated"
        )
        remedy = "a coarser spacing_mm costs less and loses nothing"
        found.append(Finding("note", "spacing-finer-than-scans", "", message, remedy))
    return found


def _duplicates(cases: Sequence[CaseFacts]) -> list[Finding]:
    by_content = grouped((case.content_hash, case) for case in cases if case.content_hash and case.hu is not None)
    found = []
    for group in by_content.values():
        if len(group) < 2:
            continue
        is_same = len({case.voxel_hash for case in group}) == 1
        names = [case.name for case in group]
        how = "the same voxels" if is_same else "the same voxels, flipped or turned"
        message = f"{names[0]}: expected a scan of its own in every case, found {how} in {listed(names[1:])}"
        remedy = "keep one of them: the other may land on the other side of the split"
        found.append(Finding("error", "duplicate", names[0], message, remedy))
    return found


def _absent_labels(cases: Sequence[CaseFacts], labels: Mapping[str, int]) -> list[Finding]:
    labelled = [case for case in cases if case.labels]
    absent = [name for name, value in labels.items() if value and not any(value in case.labels for case in labelled)]
    if not labelled or not absent:
        return []
    message = f"dataset.json: expected every label in some case, found no voxel of {listed(absent)}"
    remedy = "remove it from dataset.json, or find the label maps that have it; fine for a lesion still to be painted"
    return [Finding("note", "absent-label", "", message, remedy)]
