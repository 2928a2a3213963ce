"""Whether painted lesions look like real ones: brightness, edge, halo, mottling and noise, each alone and together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure
from pydantic import Field
from scipy.spatial.distance import cdist

from promptlesion.data.lesion_appearance import PROFILE_MM, UNITS, appearance, edge_profile
from promptlesion.evaluation.bootstrap import group_bootstrap, mean_of, mean_terms
from promptlesion.evaluation.figures import plain
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.palette import MUTED_COLOR, REAL_COLOR, TEXT_COLOR, lesion_colors
from promptlesion.evaluation.results import Estimate, Frozen
from promptlesion.evaluation.wording import readable

Lesions = Mapping[str, Sequence[LesionCrop]]
"""By lesion type, as `by_type` gives them."""
Values = Float64[np.ndarray, "_ measures"]
"""A row a lesion, a column a measure; NaN where it could not be measured."""
SHOWN = ("mean_hu", "std_hu", "outer_hu", "core_hu", "edge_hu_per_mm", "low_frequency_hu", "noise_hu")
"""The measures that a terminal and a report show; all stand in the JSON."""
_NUM_HALVINGS = 50


class AppearanceRow(Frozen):
    """One measure of the real and the synthetic lesions of one type."""

    measure: str = Field(description="as `promptlesion.data.lesion_appearance.appearance` says")
    unit: str = Field(description="HU, HU/mm, mm, or none")
    num_real: int = Field(description="real lesions that could be measured")
    num_synthetic: int = Field(description="synthetic lesions that could be measured")
    real: Estimate = Field(description="mean over the real lesions; whole subjects are drawn for the interval")
    synthetic: Estimate = Field(description="mean over the synthetic lesions; whole cases are drawn for the interval")
    difference: Estimate = Field(description="synthetic less real")
    ratio: Estimate = Field(description="synthetic over real; says little where the real mean is near 0")


class TypeAppearance(Frozen):
    """How the lesions of one type look, measure by measure and all together."""

    lesion_type: str = Field(description="lesion type")
    num_real: int = Field(description="real lesions")
    num_synthetic: int = Field(description="synthetic lesions")
    energy_distance: float | None = Field(
        description="of the joint distributions of all measures, each in standard deviations of the real lesions "
        "(Szekely & Rizzo 2013); unbiased, so below 0 by chance; None below two lesions a side"
    )
    energy_distance_of_halves: Estimate = Field(
        description="that of one half of the real subjects against the other, for scale: mean over "
        f"{_NUM_HALVINGS} halvings, and where 95 % of them lie"
    )
    measures: tuple[AppearanceRow, ...] = Field(description="a row a measure that both sides have")


@dataclass(frozen=True, eq=False)
class Measured:
    """The appearance of the lesions of one type, and the subject or case of each, which intervals draw whole."""

    values: Values
    groups: list[str]

    def column(self, measure: str) -> Float64[np.ndarray, " lesions"]:
        """Return one measure of every lesion, NaN where it could not be measured."""
        column: Float64[np.ndarray, " lesions"] = self.values[:, list(UNITS).index(measure)]
        return column


def measure_lesions(lesions: Lesions, *, groups: Literal["subject", "case"]) -> dict[str, Measured]:
    """Measure lesions once, to compare them several times; types without a lesion are left out."""
    return {
        name: Measured(_values(found), [getattr(lesion, groups) for lesion in found])
        for name, found in lesions.items()
        if found
    }


def compare_appearance(
    real: Lesions, synthetic: Lesions, *, seed: int, num_resamples: int = 2000
) -> tuple[TypeAppearance, ...]:
    """Compare how lesions look, type by type; a type missing on a side is left out.

    Args:
        real: the lesions to be like.
        synthetic: the painted lesions.
        seed: of the intervals and halvings.
        num_resamples: bootstrap resamples behind every interval.
    """
    sides = measure_lesions(real, groups="subject"), measure_lesions(synthetic, groups="case")
    return compare_measured(*sides, seed=seed, num_resamples=num_resamples)


def compare_measured(
    real: Mapping[str, Measured], synthetic: Mapping[str, Measured], *, seed: int, num_resamples: int = 2000
) -> tuple[TypeAppearance, ...]:
    """Do what `compare_appearance` does with lesions that `measure_lesions` has measured."""
    return tuple(
        _compare(name, measured, synthetic[name], seed, num_resamples)
        for name, measured in real.items()
        if name in synthetic
    )


def energy_distance(first: Values, second: Values, scale: Values) -> float | None:
    """Return the energy distance of two sets, each measure in the standard deviations of a third; NaN is its mean.

    2 E|X − Y| − E|X − X'| − E|Y − Y'|, unbiased; None below two lesions a side.
    """
    if min(len(first), len(second)) < 2:
        return None
    kept = np.isfinite(scale).any(axis=0)
    scale = scale[:, kept]
    mean, std = np.nanmean(scale, axis=0), np.nanstd(scale, axis=0)
    x, y = (np.nan_to_num((each[:, kept] - mean)[:, std > 0] / std[std > 0]) for each in (first, second))
    within = sum(cdist(each, each).sum() / (len(each) * (len(each) - 1)) for each in (x, y))
    return float(2 * cdist(x, y).mean() - within)


def profile_figure(real: Lesions, synthetic: Mapping[str, Lesions]) -> Figure:
    """Draw the mean HU across the lesions' edge, a panel a lesion type; the real lesions and each method's."""
    names = [name for name, lesions in real.items() if lesions]
    if not names:
        raise ValueError("profile figure: expected real lesions; found none")
    sides = {"real": real, **synthetic}
    colors = {"real": REAL_COLOR, **lesion_colors(list(synthetic))}
    figure = Figure(figsize=(3.2 * len(names), 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        plain(axes)
        for side, lesions in sides.items():
            if found := lesions.get(name, ()):
                profiles = np.array([edge_profile(one.hu, one.mask, one.spacing_mm) for one in found])
                known = np.isfinite(profiles).any(axis=0)
                means = np.nanmean(profiles[:, known], axis=0)
                axes.plot(np.array(PROFILE_MM)[known], means, color=colors[side], label=readable(side))
        axes.axvline(0, color=MUTED_COLOR, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set_title(readable(name), fontsize=9, color=TEXT_COLOR)
        axes.set_xlabel("depth in the lesion (mm)", fontsize=8, color=MUTED_COLOR)
        axes.legend(fontsize=7, frameon=False)
    figure.axes[0].set_ylabel("mean HU", fontsize=8, color=MUTED_COLOR)
    return figure


def _compare(name: str, real: Measured, synthetic: Measured, seed: int, num_resamples: int) -> TypeAppearance:
    rows = [
        _row(measure, unit, real, synthetic, column, seed, num_resamples)
        for column, (measure, unit) in enumerate(UNITS.items())
    ]
    return TypeAppearance(
        lesion_type=name,
        num_real=len(real.values),
        num_synthetic=len(synthetic.values),
        energy_distance=energy_distance(real.values, synthetic.values, real.values),
        energy_distance_of_halves=_between_halves(real, seed),
        measures=tuple(row for row in rows if row.num_real and row.num_synthetic),
    )


def _row(
    measure: str, unit: str, real: Measured, synthetic: Measured, column: int, seed: int, num_resamples: int
) -> AppearanceRow:
    terms = [mean_terms(side.values[:, column]) for side in (real, synthetic)]
    first, second = zip(terms, (real.groups, synthetic.groups), strict=True)
    options = {"seed": seed, "num_resamples": num_resamples}
    return AppearanceRow(
        measure=measure,
        unit=unit,
        num_real=int(terms[0][:, 1].sum()),
        num_synthetic=int(terms[1][:, 1].sum()),
        real=group_bootstrap(mean_of, first, **options),
        synthetic=group_bootstrap(mean_of, second, **options),
        difference=group_bootstrap(lambda x, y: mean_of(y) - mean_of(x), first, second, **options),
        ratio=group_bootstrap(lambda x, y: mean_of(y) / mean_of(x), first, second, **options),
    )


def _between_halves(real: Measured, seed: int) -> Estimate:
    generator, subjects = np.random.default_rng(seed), np.unique(real.groups)
    found = []
    for _ in range(_NUM_HALVINGS):
        is_first = np.isin(real.groups, generator.permutation(subjects)[: len(subjects) // 2])
        distance = energy_distance(real.values[is_first], real.values[~is_first], real.values)
        if distance is not None:
            found.append(distance)
    if not found:
        return Estimate(value=None)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value=float(np.mean(found)), low=float(low), high=float(high))


def _values(lesions: Sequence[LesionCrop]) -> Values:
    return np.array([list(appearance(one.hu, one.mask, one.spacing_mm).values()) for one in lesions])
