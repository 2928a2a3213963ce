"""Whether synthetic lesions are spread as the real ones are: HU, texture, size, and for plaque the Agatston score."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field
from scipy import stats

from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.lesion_texture import lesion_texture
from promptlesion.evaluation.agatston import plaque_burden
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.palette import MUTED_COLOR, REAL_COLOR, TEXT_COLOR, lesion_colors
from promptlesion.evaluation.results import Frozen
from promptlesion.evaluation.wording import readable

Lesions = Mapping[str, Sequence[LesionCrop]]
"""By lesion type, as `by_type` gives them."""


@dataclass(frozen=True)
class Measure:
    """What is measured of a lesion: its name in tables, and how figures call it."""

    name: str
    label: str


MEASURES = (
    Measure("mean_hu", "mean (HU)"),
    Measure("std_hu", "spread inside (HU)"),
    Measure("texture_hu", "texture (HU)"),
    Measure("grain", "neighbours' correlation"),
    Measure("diameter_mm", "diameter (mm)"),
)
PLAQUE_MEASURES = (Measure("agatston", "Agatston score"), Measure("volume_mm3", "volume (mm³)"))


class DistributionRow(Frozen):
    """One measure of the real and the synthetic lesions of one type, a lesion a value."""

    lesion_type: str = Field(description="lesion type")
    measure: str = Field(
        description="mean_hu; std_hu inside the mask; texture_hu, its spread less that of the blurred edge and of a "
        "slope; grain, the correlation of neighbouring voxels in that texture; diameter_mm of the sphere of equal "
        "volume; of plaque also agatston and volume_mm3"
    )
    num_real: int = Field(description="real lesions that could be measured")
    num_synthetic: int = Field(description="synthetic lesions that could be measured")
    real_mean: float = Field(description="mean over the real lesions, in the measure's unit")
    synthetic_mean: float = Field(description="mean over the synthetic lesions")
    real_std: float = Field(description="standard deviation between the real lesions")
    synthetic_std: float = Field(description="standard deviation between the synthetic lesions")
    wasserstein: float = Field(description="Wasserstein-1 distance of the two distributions, in the measure's unit")
    ks_p_value: float = Field(
        description="two-sided Kolmogorov-Smirnov test; it takes lesions for independent, also those of one subject"
    )


def distribution_rows(
    real: Lesions, synthetic: Lesions, *, plaque_types: Collection[str] = ()
) -> tuple[DistributionRow, ...]:
    """Compare every measure, type by type; a type or measure missing on a side has no row.

    `plaque_types` are those whose Agatston score and volume are counted too.
    """
    rows = []
    for lesion_type, real_lesions in real.items():
        if not real_lesions or not synthetic.get(lesion_type):
            continue
        first = lesion_measures(real_lesions, is_plaque=lesion_type in plaque_types)
        second = lesion_measures(synthetic[lesion_type], is_plaque=lesion_type in plaque_types)
        for measure, real_values in first.items():
            synthetic_values = second[measure]
            if len(real_values) and len(synthetic_values):
                rows.append(_row(lesion_type, measure, real_values, synthetic_values))
    return tuple(rows)


def lesion_measures(lesions: Sequence[LesionCrop], *, is_plaque: bool = False) -> dict[str, Float64[np.ndarray, " _"]]:
    """Return each measure's values, a lesion each; texture and grain leave out lesions too small to have any."""
    values: dict[str, list[float]] = {measure.name: [] for measure in MEASURES}
    if is_plaque:
        values |= {measure.name: [] for measure in PLAQUE_MEASURES}
    for lesion in lesions:
        texture = lesion_texture(lesion.hu, lesion.mask, lesion.spacing_mm)
        volume_mm3 = int(lesion.mask.sum()) * float(np.prod(lesion.spacing_mm))
        found = {
            "mean_hu": lesion.mean_hu,
            "std_hu": float(lesion.voxels_hu.std(dtype=np.float64)),
            "texture_hu": texture.std_hu,
            "grain": texture.neighbour_correlation,
            "diameter_mm": sphere_diameter_mm(volume_mm3),
        }
        if is_plaque:
            burden = plaque_burden(lesion.hu, lesion.mask, lesion.spacing_mm)
            found |= {"agatston": burden.agatston, "volume_mm3": burden.volume_mm3}
        for name, value in found.items():
            if value is not None:
                values[name].append(value)
    return {name: np.array(numbers, dtype=np.float64) for name, numbers in values.items()}


def distribution_figure(
    real: Lesions, synthetic: Mapping[str, Lesions], *, plaque_types: Collection[str] = ()
) -> Figure:
    """Draw boxes of every measure, a row a measure and a column a lesion type; the real lesions and each method's.

    `synthetic` holds the lesions by method. A box spans the middle half, its line the median, its whiskers 5 to 95 %;
    the grey band across is the middle half of the real lesions.
    """
    names = [name for name, lesions in real.items() if lesions]
    if not names:
        raise ValueError("distribution figure: expected real lesions; found none")
    has_plaque = any(name in plaque_types for name in names)
    measures = (*MEASURES, *(PLAQUE_MEASURES if has_plaque else ()))
    sides = {"real": real, **synthetic}
    colors = {"real": REAL_COLOR, **lesion_colors(list(synthetic))}
    size = ((0.34 * len(sides) + 1.1) * len(names) + 0.6, 1.5 * len(measures) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(measures), len(names), squeeze=False)
    for column, name in enumerate(names):
        values = {
            side: lesion_measures(lesions.get(name, ()), is_plaque=name in plaque_types)
            for side, lesions in sides.items()
        }
        for row, measure in enumerate(measures):
            axes = panels[row, column]
            if measure.name not in values["real"]:
                axes.set_axis_off()
                continue
            _boxes(axes, {side: found[measure.name] for side, found in values.items()}, colors)
            if row == 0:
                axes.set_title(readable(name), fontsize=9, color=TEXT_COLOR)
            if column == 0 or measure.name not in lesion_measures((), is_plaque=names[0] in plaque_types):
                axes.set_ylabel(measure.label, fontsize=8, color=MUTED_COLOR)
    for side, color in colors.items():
        panels[0, 0].plot([], [], "s", color=color, label=readable(side))
    figure.legend(loc="outside lower center", ncols=min(4, len(sides)), fontsize=8, frameon=False)
    return figure


def _row(
    lesion_type: str, measure: str, real: Float64[np.ndarray, " _"], synthetic: Float64[np.ndarray, " _"]
) -> DistributionRow:
    return DistributionRow(
        lesion_type=lesion_type,
        measure=measure,
        num_real=len(real),
        num_synthetic=len(synthetic),
        real_mean=float(real.mean()),
        synthetic_mean=float(synthetic.mean()),
        real_std=float(real.std()),
        synthetic_std=float(synthetic.std()),
        wasserstein=float(stats.wasserstein_distance(real, synthetic)),
        ks_p_value=float(stats.ks_2samp(real, synthetic).pvalue),
    )


def _boxes(axes: Axes, values: Mapping[str, Float64[np.ndarray, " _"]], colors: Mapping[str, str]) -> None:
    shown = {side: numbers for side, numbers in values.items() if len(numbers)}
    positions = [list(values).index(side) for side in shown]
    if len(values["real"]):
        axes.axhspan(*np.quantile(values["real"], [0.25, 0.75]), color=REAL_COLOR, alpha=0.1, linewidth=0)
    drawn = axes.boxplot(
        list(shown.values()), positions=positions, widths=0.65, whis=(5, 95), showfliers=False, patch_artist=True
    )
    for box, median, side in zip(drawn["boxes"], drawn["medians"], shown, strict=True):
        box.set(facecolor=colors[side], edgecolor=colors[side], alpha=0.75)
        median.set(color="white", linewidth=1.4)
    axes.set_xticks([])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(MUTED_COLOR)
    axes.tick_params(colors=MUTED_COLOR, labelsize=7)
