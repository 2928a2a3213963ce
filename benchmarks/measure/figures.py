"""Charts of what was measured of a generator: bias, samplers, prompts, surroundings."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from measure.type_bias import TypeBias
from promptlesion.evaluation.palette import GRID_COLOR, MUTED_COLOR, REAL_COLOR, TEXT_COLOR, lesion_colors
from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.wording import readable

_LINE_STYLES = ("-", (0, (4, 2)))
_MARKERS = ("o", "s", "^", "D")
_SERIES_COLORS = tuple(lesion_colors([str(index) for index in range(6)]).values())


def bias_figure(biases: Mapping[str, Sequence[TypeBias]]) -> Figure:
    """Draw each type's HU bias with its interval, a colour a row of the table, over the band that is allowed."""
    names = list(dict.fromkeys(bias.lesion_type for row in biases.values() for bias in row))
    figure = Figure(figsize=(1.7 * len(names) + 2.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for position, name in enumerate(names):
        allowed = max(bias.tolerance_hu for row in biases.values() for bias in row if bias.lesion_type == name)
        axes.fill_between([position - 0.4, position + 0.4], -allowed, allowed, color=GRID_COLOR, linewidth=0)
    axes.axhline(0, color=MUTED_COLOR, linewidth=0.8)
    for index, (label, row) in enumerate(biases.items()):
        offset = (index - (len(biases) - 1) / 2) * 0.7 / max(len(biases), 1)
        for bias in row:
            _dot(axes, names.index(bias.lesion_type) + offset, bias.bias, _SERIES_COLORS[index % len(_SERIES_COLORS)])
        axes.plot([], [], "o", color=_SERIES_COLORS[index % len(_SERIES_COLORS)], label=label)
    axes.set_xticks(range(len(names)), [readable(name).replace(" ", "\n") for name in names], fontsize=9)
    axes.set_ylabel("bias (HU)", fontsize=9, color=MUTED_COLOR)
    axes.set_title("mean HU inside lesions, less real; grey: allowed", fontsize=9, color=TEXT_COLOR, loc="left")
    _plain(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=TEXT_COLOR)
    return figure


def sampler_figure(curves: Mapping[str, Sequence[tuple[int, float, Estimate]]], reference: Estimate) -> Figure:
    """Draw each sampler's lesion-KID against its seconds per lesion, the number of steps at each point.

    `curves` holds, per sampler, number of steps, seconds and KID; the band is the reference's interval.
    """
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    if reference.low is not None and reference.high is not None:
        axes.axhspan(reference.low, reference.high, color=GRID_COLOR, linewidth=0)
    for index, (name, points) in enumerate(curves.items()):
        color = _SERIES_COLORS[index % len(_SERIES_COLORS)]
        known = sorted((seconds, e.value, n) for n, seconds, e in points if e.value is not None)
        axes.plot([s for s, _, _ in known], [kid for _, kid, _ in known], color=color, linewidth=1, label=name)
        for _, seconds, estimate in points:
            _dot(axes, seconds, estimate, color)
        for seconds, kid, num_steps in known:
            axes.annotate(
                str(num_steps),
                (seconds, kid),
                xytext=(4, 4 + 8 * (index - 1)),
                textcoords="offset points",
                fontsize=7,
                color=color,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.set_xlabel("seconds per lesion; at the points: steps", fontsize=9, color=MUTED_COLOR)
    axes.set_ylabel("lesion-KID", fontsize=9, color=MUTED_COLOR)
    _plain(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=TEXT_COLOR)
    return figure


def confusion_figure(counts: Mapping[str, Int[np.ndarray, "asked told"]], lesion_types: Sequence[str]) -> Figure:
    """Draw, a panel a method, the share of each asked-for type that the classifier tells as each type."""
    num_columns = min(4, len(counts))
    num_rows = -(-len(counts) // num_columns)
    figure = Figure(figsize=(2.4 * num_columns + 1.4, 2.6 * num_rows + 1.3), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False)
    labels = [readable(name) for name in lesion_types]
    for axes in panels.ravel()[len(counts) :]:
        axes.set_axis_off()
    for index, (title, matrix) in enumerate(counts.items()):
        axes = panels.ravel()[index]
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            color = "white" if share > 0.6 else TEXT_COLOR
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7.5, color=color)
        axes.set_title(title, fontsize=9, color=TEXT_COLOR)
        is_first = index % num_columns == 0
        axes.set_yticks(range(len(labels)), labels if is_first else [""] * len(labels), fontsize=7)
        axes.set_xticks(range(len(labels)), labels, fontsize=7, rotation=40, ha="right")
        axes.tick_params(colors=MUTED_COLOR, length=0)
        axes.spines[:].set_visible(False)
    figure.supxlabel("told by the classifier, % of the row", fontsize=9, color=MUTED_COLOR)
    figure.supylabel("asked for", fontsize=9, color=MUTED_COLOR)
    return figure


def surroundings_figure(
    profiles: Mapping[str, Mapping[str, Sequence[float | None]]], *, voxel_mm: float, edge_mm: float
) -> Figure:
    """Draw the mean absolute error against the distance from the lesion's mask.

    `profiles` holds, per variant (a colour each) and per way of putting it into the scan (a line style each), the
    error of each layer of voxels, the nearest first.
    """
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(0, edge_mm, color=GRID_COLOR, linewidth=0)
    for index, (variant, lines) in enumerate(profiles.items()):
        for (way, profile), style in zip(lines.items(), _LINE_STYLES, strict=False):
            points = [((layer + 1) * voxel_mm, value) for layer, value in enumerate(profile) if value is not None]
            axes.plot(
                *zip(*points, strict=True),
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=6 - 1.2 * (index % len(_MARKERS)),
                linewidth=1.3,
                linestyle=style,
                color=_SERIES_COLORS[index % len(_SERIES_COLORS)],
                label=f"{variant}, {way}",
            )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("distance from the lesion (mm); grey: the blended edge", fontsize=9, color=MUTED_COLOR)
    axes.set_ylabel("mean absolute error (HU)", fontsize=9, color=MUTED_COLOR)
    _plain(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False, labelcolor=TEXT_COLOR)
    return figure


def _dot(axes: Axes, position: float, estimate: Estimate, color: str) -> None:
    if estimate.value is None:
        return
    axes.plot(
        position, estimate.value, "o", markersize=4.5, color=color, markeredgecolor=REAL_COLOR, markeredgewidth=0.3
    )
    if estimate.low is not None and estimate.high is not None:
        axes.plot([position, position], [estimate.low, estimate.high], color=color, linewidth=1.4)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED_COLOR)
    axes.tick_params(colors=MUTED_COLOR, labelsize=8, which="both")
