"""Are the voxels the Hounsfield units of a body: air, soft tissue and bone where they belong, nothing cut off?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Num, UInt8

from promptlesion.check.finding import Finding, Severity

LOWEST_HU, HIGHEST_HU = -1100, 3200
NUM_BINS = HIGHEST_HU - LOWEST_HU + 1
HU_OF_BIN = np.arange(LOWEST_HU, HIGHEST_HU + 1)
_VOXELS_AT_ONCE = 2**21
_AIR_HU = (-1050, -950)
_SOFT_TISSUE_HU = (-150, 200)
_BONE_HU = 300
_LUNG_HU = -700
_METAL_HU = 2900
_PILE_RATIO = 20.0
"""A value this much more frequent than those beside it was not measured but cut off."""


@dataclass(frozen=True)
class HUFacts:
    """How the HU of a scan are spread."""

    lowest: float
    highest: float
    share_air: float
    """Of the voxels, from -1050 to -950 HU."""
    share_soft_tissue: float
    """Of the voxels, from -150 to 200 HU."""
    share_bone: float
    """Of the voxels, above 300 HU: bone, contrast medium, calcium and metal."""
    clipped_below: int | None
    """HU below which everything was cut off."""
    clipped_above: int | None
    num_metal_voxels: int


def hu_histograms(
    image: Num[np.ndarray, "x y z"], labels: UInt8[np.ndarray, "x y z"]
) -> tuple[list[int], Int64[np.ndarray, "label hu"]]:
    """Return the values of a label map, background included, and for each how often every HU from -1100 to 3200 occurs.

    What lies beyond counts at the ends. A slab at a time, so that a large scan takes no more memory.
    """
    values = [int(value) for value in np.flatnonzero(_label_counts(labels))]
    place = np.zeros(256, dtype=np.int64)
    place[values] = np.arange(len(values)) * NUM_BINS
    counts = np.zeros(len(values) * NUM_BINS, dtype=np.int64)
    for slab in _slabs(image.shape):
        hu = image[slab]
        hu = np.rint(np.nan_to_num(hu)) if hu.dtype.kind == "f" else hu
        index = np.clip(hu, LOWEST_HU, HIGHEST_HU).astype(np.int64) - LOWEST_HU
        counts += np.bincount((index + place[labels[slab]]).ravel(), minlength=len(counts))
    return values, counts.reshape(len(values), NUM_BINS)


def hu_facts(counts: Int64[np.ndarray, " hu"], *, lowest: float, highest: float) -> HUFacts:
    """Read off the histogram of a whole scan; its lowest and highest HU come from the voxels themselves."""
    total = max(int(counts.sum()), 1)
    return HUFacts(
        lowest=lowest,
        highest=highest,
        share_air=float(counts[_bins(*_AIR_HU)].sum() / total),
        share_soft_tissue=float(counts[_bins(*_SOFT_TISSUE_HU)].sum() / total),
        share_bone=float(counts[_bins(_BONE_HU, HIGHEST_HU)].sum() / total),
        clipped_below=_pile(counts, lowest, total, side=1) if lowest > -900 else None,
        clipped_above=_pile(counts, highest, total, side=-1) if highest < _METAL_HU else None,
        num_metal_voxels=int(counts[_bins(_METAL_HU, HIGHEST_HU)].sum()),
    )


def intensity_findings(case: str, facts: HUFacts) -> list[Finding]:
    """Say what about the HU of a scan is not as in a CT."""
    found: list[Finding] = []

    def say(severity: Severity, code: str, message: str, remedy: str = "") -> None:
        found.append(Finding(severity, code, case, f"{case}: {message}", remedy))

    if facts.clipped_below is not None or facts.clipped_above is not None:
        ends = [f"{facts.lowest:g}" if facts.clipped_below is not None else ""]
        ends += [f"{facts.highest:g}" if facts.clipped_above is not None else ""]
        say(
            "warning",
            "clipped-hu",
            f"expected HU as scanned, from about -1000 to above 1000, found everything beyond "
            f"{' and '.join(filter(None, ends))} HU cut off",
            "export the scan anew without a window; a window_hu inside these limits loses nothing",
        )
    elif facts.lowest > _LUNG_HU:
        say(
            "note",
            "no-air",
            f"expected air near -1000 HU around or in the body, found nothing below {facts.lowest:g} HU: a crop from "
            "inside the body?",
        )
    if facts.lowest < _AIR_HU[0] - 150:
        say(
            "note",
            "padding",
            f"expected nothing below air, about -1024 HU, found {facts.lowest:g} HU: padding outside the scanner's "
            "field of view",
        )
    if facts.share_soft_tissue < 0.02:
        say(
            "warning",
            "no-soft-tissue",
            f"expected soft tissue between {_SOFT_TISSUE_HU[0]} and {_SOFT_TISSUE_HU[1]} HU, found "
            f"{facts.share_soft_tissue:.1%} of the voxels there",
            "check slope and intercept of the export, and that this is a CT",
        )
    if facts.share_bone == 0 and facts.clipped_above is None:
        say("note", "no-bone", f"expected bone or contrast medium above {_BONE_HU} HU, found none: a small crop?")
    if facts.num_metal_voxels > 20:
        say("note", "metal", f"found {facts.num_metal_voxels} voxels above {_METAL_HU} HU: metal, with its streaks")
    return found


def _bins(low: int, high: int) -> slice:
    return slice(low - LOWEST_HU, high - LOWEST_HU + 1)


def _pile(counts: Int64[np.ndarray, " hu"], end: float, total: int, *, side: int) -> int | None:
    """Return the value at an end of the histogram where it piles up as only cut-off values do."""
    if not LOWEST_HU < end < HIGHEST_HU:
        return None
    value = round(end)
    at = value - LOWEST_HU
    beside = counts[at + 1 : at + 11] if side > 0 else counts[at - 10 : at]
    is_pile = counts[at] > max(_PILE_RATIO * float(beside.mean()), 1e-5 * total, 20.0)
    return value if is_pile else None


def _slabs(shape: Sequence[int]) -> list[slice]:
    step = max(1, _VOXELS_AT_ONCE // max(1, shape[1] * shape[2]))
    return [slice(start, start + step) for start in range(0, shape[0], step)]


def _label_counts(labels: UInt8[np.ndarray, "x y z"]) -> Int64[np.ndarray, "256"]:
    counts = np.zeros(256, dtype=np.int64)
    for slab in _slabs(labels.shape):
        counts += np.bincount(labels[slab].ravel(), minlength=256)
    return counts
