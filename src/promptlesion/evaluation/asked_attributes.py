"""Whether painted lesions are as bright, mottled and large as was asked for, from what a cohort's provenance says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from promptlesion.data.provenance import read_provenance
from promptlesion.evaluation.bootstrap import group_bootstrap, mean_of, mean_terms
from promptlesion.evaluation.results import Estimate, Frozen

CLOSE_SHARE, CLOSE_HU = 0.05, 8.0
Sums = Float64[np.ndarray, "draws 6"]


@dataclass(frozen=True)
class AskedLesion:
    """An accepted lesion, and one attribute of it as asked for and as painted."""

    case: str
    lesion_type: str
    attribute: str
    asked: float
    painted: float


class AskedRow(Frozen):
    """One attribute of the accepted lesions of one type; whole cases are drawn for the intervals."""

    lesion_type: str = Field(description="lesion type")
    attribute: str = Field(description="for example mean_hu, std_hu or diameter_mm")
    num_lesions: int = Field(description="accepted lesions for which it was asked")
    asked: Estimate = Field(description="mean of what was asked for, in the attribute's unit")
    painted: Estimate = Field(description="mean of what was painted")
    absolute_difference: Estimate = Field(description="mean of the absolute differences")
    share_close: Estimate = Field(
        description=f"share of lesions within {CLOSE_SHARE:.0%} of what was asked for, or, of mean_hu, {CLOSE_HU:g} HU"
    )
    slope: Estimate = Field(description="of the least-squares line of painted on asked; 1: follows, 0: does not")
    correlation: Estimate = Field(description="of painted and asked")


def asked_lesions(root: Path) -> list[AskedLesion]:
    """Return what was asked of the accepted lesions of a synthetic dataset; nothing where its provenance is silent."""
    return [
        AskedLesion(case, str(lesion["type"]), attribute, float(asked), float(painted))
        for case, line in read_provenance(root).items()
        for lesion in line.get("lesions", ())
        if lesion.get("is_accepted", True)
        for attribute, asked in (lesion.get("asked") or {}).items()
        if asked is not None and (painted := _painted(lesion, attribute)) is not None
    ]


def asked_rows(
    lesions: Sequence[AskedLesion], lesion_types: Sequence[str], *, seed: int, num_resamples: int = 2000
) -> tuple[AskedRow, ...]:
    """Compare what was painted with what was asked for, by type and attribute.

    Args:
        lesions: as `asked_lesions` gives them.
        lesion_types: in prompt order.
        seed: of the intervals.
        num_resamples: bootstrap resamples behind every interval.
    """
    attributes = dict.fromkeys(lesion.attribute for lesion in lesions)
    groups: dict[tuple[str, str], list[AskedLesion]] = {
        (name, attribute): [] for name in lesion_types for attribute in attributes
    }
    for lesion in lesions:
        groups[lesion.lesion_type, lesion.attribute].append(lesion)
    return tuple(_row(*key, found, seed, num_resamples) for key, found in groups.items() if found)


def _painted(lesion: dict[str, Any], attribute: str) -> float | None:
    """Return an attribute as painted, which its own mapping says, or the lesion's entry itself."""
    value = (lesion.get("painted") or {}).get(attribute, lesion.get(attribute))
    return None if value is None else float(value)


def _row(lesion_type: str, attribute: str, lesions: Sequence[AskedLesion], seed: int, num_resamples: int) -> AskedRow:
    cases = [lesion.case for lesion in lesions]
    asked, painted = np.array([(lesion.asked, lesion.painted) for lesion in lesions]).T
    apart = np.abs(painted - asked)
    allowed = np.maximum(CLOSE_SHARE * np.abs(asked), CLOSE_HU if attribute == "mean_hu" else 0.0)
    middles = asked.mean(), painted.mean()  # sums of squares lose fewer digits about the middle
    x, y = asked - middles[0], painted - middles[1]
    moments = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    options = {"seed": seed, "num_resamples": num_resamples}
    return AskedRow(
        lesion_type=lesion_type,
        attribute=attribute,
        num_lesions=len(lesions),
        asked=group_bootstrap(mean_of, (mean_terms(asked), cases), **options),
        painted=group_bootstrap(mean_of, (mean_terms(painted), cases), **options),
        absolute_difference=group_bootstrap(mean_of, (mean_terms(apart), cases), **options),
        share_close=group_bootstrap(mean_of, (mean_terms((apart <= allowed).astype(np.float64)), cases), **options),
        slope=group_bootstrap(_slope, (moments, cases), **options),
        correlation=group_bootstrap(_correlation, (moments, cases), **options),
    )


def _slope(sums: Sums) -> Float64[np.ndarray, " draws"]:
    of_asked, of_both, _ = _spreads(sums)
    return np.asarray(of_both / of_asked)


def _correlation(sums: Sums) -> Float64[np.ndarray, " draws"]:
    of_asked, of_both, of_painted = _spreads(sums)
    return np.asarray(of_both / np.sqrt(of_asked * of_painted))


def _spreads(sums: Sums) -> tuple[Float64[np.ndarray, " draws"], ...]:
    """Return variance of asked, covariance and variance of painted; a variance of 0 but for rounding is NaN."""
    number, x, y, xx, xy, yy = sums.T
    found = []
    for product, square in ((xx, x * x), (xy, x * y), (yy, y * y)):
        found.append(product / number - square / number**2)
    for index, product in ((0, xx), (2, yy)):
        found[index] = np.where(found[index] > 1e-9 * product / number, found[index], np.nan)
    return tuple(found)
