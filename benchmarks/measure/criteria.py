"""What is asked of a generator, type by type: how near painted lesions are to the real ones, and whether near enough.

Six criteria count, and what stands under `INFORMATION` is told beside them. Where real lesions of a type look
otherwise in another place, like is compared with like: their own line says what would stand there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from promptlesion.data.intensity import intensity_tolerance_hu
from promptlesion.evaluation.appearance import Measured
from promptlesion.evaluation.asked_attributes import CLOSE_HU, CLOSE_SHARE, AskedRow
from promptlesion.evaluation.bootstrap import group_bootstrap, mean_of, mean_terms
from promptlesion.evaluation.results import Estimate, Frozen

Interval = Literal["inside", "across", "outside"]
Limits = tuple[float | None, float | None]
Lesions = Float64[np.ndarray, " lesions"]
Sums = Float64[np.ndarray, "draws 6"]
Draws = Float64[np.ndarray, " draws"]
Statistic = Callable[..., Draws]

CRITERIA = ("mean", "spread", "outer", "edge", "low_frequency", "noise")
INFORMATION = ("mean_less_real", "mid_frequency", "halo", "share_above_300")
_SLOPE, _CORRELATION = (0.9, 1.1), (0.9, None)
_OUTER_SHARE, _OUTER_HU = 0.1, 10.0
_EDGE = (-0.15, 0.15)
_RATIOS: dict[str, tuple[str, Limits]] = {
    "spread": ("std_hu", (0.85, 1.15)),
    "low_frequency": ("low_frequency_hu", (1 / 1.3, 1.3)),
    "noise": ("noise_hu", (1 / 1.15, 1.15)),
    "mid_frequency": ("mid_frequency_hu", (None, None)),
}
"""Criterion: its measure, and between what painted over real should lie."""
_DIFFERENCES = {"halo": ("halo_hu", "HU"), "share_above_300": ("share_above_300", "share")}


class CriterionRow(Frozen):
    """One figure of one criterion, for the lesions of one type."""

    lesion_type: str = Field(description="lesion type")
    criterion: str = Field(description="one of `CRITERIA` or `INFORMATION`; it is met when all its figures are")
    figure: str = Field(description="what was computed")
    unit: str = Field(description="HU, share, or none for a ratio, slope or correlation")
    num_real: int = Field(description="real lesions, or those something was asked of")
    num_painted: int = Field(description="painted lesions")
    reference: Estimate = Field(description="plain mean of the real lesions, or of what was asked for")
    painted: Estimate = Field(description="plain mean of the painted lesions")
    found: Estimate = Field(description="the figure; subjects of real and cases of painted lesions are drawn")
    at_least: float | None = Field(description="lower limit, None: there is none")
    at_most: float | None = Field(description="upper limit, None: there is none")
    is_met: bool | None = Field(description="whether the figure lies within its limits; None without limits")
    interval: Interval | None = Field(description="how the interval lies to the limits; None without one or the other")


def criteria_rows(
    real: Mapping[str, Measured],
    painted: Mapping[str, Measured],
    asked: Sequence[AskedRow],
    *,
    seed: int,
    num_resamples: int = 2000,
) -> tuple[CriterionRow, ...]:
    """Judge a cohort type by type; a type missing on a side is left out.

    Args:
        real: as `measure_lesions` gives them, by subject.
        painted: likewise, by case.
        asked: what was painted against what was asked for; its `mean_hu` is what the mean is judged by, and where a
            type has none, real lesions are.
        seed: of the intervals.
        num_resamples: bootstrap resamples behind every interval.
    """
    asked_means = {row.lesion_type: row for row in asked if row.attribute == "mean_hu"}
    types = (_Type(name, real[name], painted[name], seed, num_resamples) for name in real if name in painted)
    return tuple(row for each in types for row in each.rows(asked_means.get(each.name)))


def met(rows: Sequence[CriterionRow], criterion: str) -> bool | None:
    """Return whether one type meets a criterion, which is whether all figures with limits lie in them."""
    judged = [row.is_met for row in rows if row.criterion == criterion and row.is_met is not None]
    return all(judged) if judged else None


@dataclass(frozen=True)
class _Type:
    """The lesions of one type, real and painted, and how their intervals are drawn."""

    name: str
    real: Measured
    painted: Measured
    seed: int
    num_resamples: int

    @property
    def options(self) -> dict[str, int]:
        return {"seed": self.seed, "num_resamples": self.num_resamples}

    def rows(self, asked: AskedRow | None) -> list[CriterionRow]:
        """Return every criterion, in the order they are told in."""
        ratios = {name: self._ratio(name, *each) for name, each in _RATIOS.items()}
        differences = [self._difference(name, *each) for name, each in _DIFFERENCES.items()]
        means = [self._mean()] if asked is None else self._means_asked(asked)
        means.append(self._difference("mean_less_real", "mean_hu", "HU"))
        texture = [ratios[name] for name in ("low_frequency", "noise", "mid_frequency")]
        return [*means, ratios["spread"], self._outer(), *self._edge(), *texture, *differences]

    def _means_asked(self, asked: AskedRow) -> list[CriterionRow]:
        most = _within(asked.asked.value, CLOSE_SHARE, CLOSE_HU)[1]
        figures: list[tuple[str, str, Estimate, Limits]] = [
            ("apart from asked", "HU", asked.absolute_difference, (None, most)),
            ("slope on asked", "", asked.slope, _SLOPE),
            ("correlation with asked", "", asked.correlation, _CORRELATION),
            (f"share within {CLOSE_SHARE:.0%} or {CLOSE_HU:g} HU of asked", "share", asked.share_close, (None, None)),
        ]
        counts = asked.num_lesions, asked.num_lesions
        return [
            _row(self.name, "mean", figure, unit, counts, asked.asked, asked.painted, found, limits)
            for figure, unit, found, limits in figures
        ]

    def _mean(self) -> CriterionRow:
        real = self._means("mean_hu")[0].value
        return self._difference("mean", "mean_hu", "HU", _within(real, CLOSE_SHARE, CLOSE_HU))

    def _ratio(self, criterion: str, measure: str, limits: Limits) -> CriterionRow:
        found = self._of_means(measure, lambda real, painted: mean_of(painted) / mean_of(real))
        return self._measured(criterion, measure, "painted over real", "", found, limits)

    def _difference(self, criterion: str, measure: str, unit: str, limits: Limits = (None, None)) -> CriterionRow:
        found = self._of_means(measure, lambda real, painted: mean_of(painted) - mean_of(real))
        return self._measured(criterion, measure, "painted less real", unit, found, limits)

    def _outer(self) -> CriterionRow:
        found = self._of_lines("core_hu", "outer_hu", _above_line)
        limits = _within(self._means("outer_hu")[0].value, _OUTER_SHARE, _OUTER_HU)
        return self._measured("outer", "outer_hu", "painted less real of like core", "HU", found, limits)

    def _edge(self) -> list[CriterionRow]:
        """Return how far edges are from real ones of like contrast, and beside it how they follow the contrast.

        An edge that is too soft everywhere is on average as it should be where contrasts of both signs cancel.
        """
        measures = "contrast_hu", "edge_hu_per_mm"
        off = self._of_lines(*measures, lambda real, painted: _above_line(real, painted) / _mean_size(real))
        follows = self._of_lines(*measures, lambda real, painted: _slope(painted) / _slope(real))
        name = "edge_hu_per_mm"
        return [
            self._measured("edge", name, "off real of like contrast, over mean real size", "share", off, _EDGE),
            self._measured("edge", name, "slope on contrast, painted over real", "", follows, (None, None)),
        ]

    def _of_means(self, measure: str, statistic: Statistic) -> Estimate:
        real, painted = (mean_terms(side.column(measure)) for side in (self.real, self.painted))
        return group_bootstrap(statistic, (real, self.real.groups), (painted, self.painted.groups), **self.options)

    def _of_lines(self, on: str, measure: str, statistic: Statistic) -> Estimate:
        """Estimate what follows from the real lesions' line, fitted again in every draw."""
        middles = [float(each.value or 0.0) for each, _ in (self._means(on), self._means(measure))]
        real, painted = (
            _line_terms(side.column(on) - middles[0], side.column(measure) - middles[1], side.column(measure))
            for side in (self.real, self.painted)
        )
        return group_bootstrap(statistic, (real, self.real.groups), (painted, self.painted.groups), **self.options)

    def _means(self, measure: str) -> tuple[Estimate, Estimate]:
        real, painted = (
            group_bootstrap(mean_of, (mean_terms(side.column(measure)), side.groups), **self.options)
            for side in (self.real, self.painted)
        )
        return real, painted

    def _measured(
        self, criterion: str, measure: str, figure: str, unit: str, found: Estimate, limits: Limits
    ) -> CriterionRow:
        num_real, num_painted = (int(np.isfinite(side.column(measure)).sum()) for side in (self.real, self.painted))
        counts, means = (num_real, num_painted), self._means(measure)
        return _row(self.name, criterion, f"{measure}: {figure}", unit, counts, *means, found, limits)


def _row(
    lesion_type: str,
    criterion: str,
    figure: str,
    unit: str,
    counts: tuple[int, int],
    reference: Estimate,
    painted: Estimate,
    found: Estimate,
    limits: Limits,
) -> CriterionRow:
    is_judged, (low, high) = limits != (None, None), _ends(limits)
    interval: Interval | None = None
    if is_judged and found.low is not None and found.high is not None:
        is_inside, is_outside = low <= found.low and found.high <= high, found.high < low or found.low > high
        interval = "inside" if is_inside else "outside" if is_outside else "across"
    return CriterionRow(
        lesion_type=lesion_type,
        criterion=criterion,
        figure=figure,
        unit=unit,
        num_real=counts[0],
        num_painted=counts[1],
        reference=reference,
        painted=painted,
        found=found,
        at_least=limits[0],
        at_most=limits[1],
        is_met=(found.value is not None and low <= found.value <= high) if is_judged else None,
        interval=interval,
    )


def _ends(limits: Limits) -> tuple[float, float]:
    low, high = limits
    return -np.inf if low is None else low, np.inf if high is None else high


def _within(mean_hu: float | None, share: float, hu: float) -> Limits:
    limit = intensity_tolerance_hu(mean_hu or 0.0, relative=share, absolute_hu=hu)
    return -limit, limit


def _line_terms(x: Lesions, y: Lesions, size: Lesions) -> Float64[np.ndarray, "lesions 6"]:
    """Return what is summed for a line of y on x, of lesions that have both, and for the mean |size|."""
    terms = np.column_stack([np.ones_like(x), x, y, x * x, x * y, np.abs(size)])
    return np.where((np.isfinite(x) & np.isfinite(y))[:, None], terms, 0.0)


def _slope(sums: Sums) -> Draws:
    """Return the least-squares slope; a spread of x of 0 but for rounding has none."""
    number, x, y, xx, xy, _ = sums.T
    spread = xx / number - (x / number) ** 2
    spread = np.where(spread > 1e-9 * xx / number, spread, np.nan)
    slope: Draws = (xy / number - x * y / number**2) / spread
    return slope


def _above_line(real: Sums, painted: Sums) -> Draws:
    """Return how far painted lesions lie above the line of the real ones, on average."""
    (x, y), (painted_x, painted_y) = ((sums.T[1:3] / sums.T[0]) for sums in (real, painted))
    above: Draws = painted_y - y - _slope(real) * (painted_x - x)
    return above


def _mean_size(sums: Sums) -> Draws:
    size: Draws = sums.T[5] / sums.T[0]
    return size
