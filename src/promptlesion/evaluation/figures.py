"""The report's charts: training curves and HU histograms. Every function gives a new `Figure`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from promptlesion.evaluation.palette import (
    GRID_COLOR,
    MUTED_COLOR,
    REAL_COLOR,
    SYNTHETIC_COLOR,
    TEXT_COLOR,
)
from promptlesion.evaluation.wording import readable
from promptlesion.training.atomic import written_whole

_POSITION_KEYS = ("step", "epoch")
_CURVE_COLOR = "#2F6DB5"


def save_figure(figure: Figure, path: Path, *, dots_per_inch: int = 160) -> Path:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes."""
    with written_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return path


def training_curves_figure(metrics: Mapping[str, Sequence[Mapping[str, float]]], *, max_panels: int = 4) -> Figure:
    """Draw each stage's logged figures against its steps, at most `max_panels` a stage, in the order logged.

    `metrics` holds per stage the lines of `metrics.jsonl`; a figure may stand in some of them only.
    """
    stages = {name: lines for name, lines in metrics.items() if lines}
    if not stages:
        raise ValueError("training curves: expected at least one stage with metrics, got none")
    curves = [(stage, key, lines) for stage, lines in stages.items() for key in _metric_keys(lines)[:max_panels]]
    num_columns = min(4, len(curves))
    num_rows = -(-len(curves) // num_columns)
    figure = Figure(figsize=(2.75 * num_columns, 2.1 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes, (stage, key, lines) in zip(panels, curves, strict=False):
        _curve(axes, lines, key)
        axes.set_title(f"{readable(stage)}\n{readable(key)}", fontsize=8.5, color=TEXT_COLOR, loc="left")
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    return figure


def hu_histogram_figure(
    real_hu: Mapping[str, Float[np.ndarray, " _"]],
    synthetic_hu: Mapping[str, Float[np.ndarray, " _"]],
    *,
    window_hu: tuple[float, float],
    num_bins: int = 60,
) -> Figure:
    """Draw, per lesion type, how the HU of all voxels inside real and synthetic lesions are spread.

    Voxels beyond the window are counted in its outermost bins, as the networks see them.
    """
    figure = Figure(figsize=(3.9 * len(real_hu) + 0.2, 2.9), layout="constrained")
    panels = figure.subplots(1, len(real_hu), squeeze=False)[0]
    for axes, (lesion_type, real) in zip(panels, real_hu.items(), strict=True):
        synthetic = synthetic_hu.get(lesion_type, np.empty(0))
        clipped = [np.clip(values, *window_hu) for values in (real, synthetic)]
        everything = np.concatenate(clipped)
        low, high = np.percentile(everything, [0.1, 99.9]) if everything.size else window_hu
        bins = np.linspace(low, max(high, low + 1), num_bins + 1)
        for values, color, name in zip(clipped, (REAL_COLOR, SYNTHETIC_COLOR), ("real", "synthetic"), strict=True):
            if not values.size:
                continue
            label = f"{name}, mean {values.mean():.0f} HU"
            weights = np.full(values.size, 1 / values.size)
            options = {"bins": bins, "weights": weights, "color": color}
            axes.hist(np.clip(values, bins[0], bins[-1]), histtype="stepfilled", alpha=0.22, **options)
            axes.hist(np.clip(values, bins[0], bins[-1]), histtype="step", linewidth=1.6, label=label, **options)
            axes.axvline(values.mean(), color=color, linewidth=1.2, linestyle=(0, (4, 2)))
        plain(axes)
        axes.set_title(readable(lesion_type), fontsize=11, color=TEXT_COLOR, loc="left")
        axes.set_xlabel("HU inside the lesion", fontsize=9, color=MUTED_COLOR)
        axes.set_ylabel("share of voxels", fontsize=9, color=MUTED_COLOR)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.28)
        axes.legend(fontsize=8.5, loc="upper right", edgecolor="none", framealpha=0.9, labelcolor=TEXT_COLOR)
    return figure


def _metric_keys(lines: Sequence[Mapping[str, float]]) -> list[str]:
    keys = dict.fromkeys(key for line in lines for key in line if key not in _POSITION_KEYS)
    return list(keys)


def _curve(axes: Axes, lines: Sequence[Mapping[str, float]], key: str) -> None:
    position_key = next((name for name in _POSITION_KEYS if name in lines[0]), None)
    points = [
        (line[position_key] if position_key else index, line[key])
        for index, line in enumerate(lines)
        if key in line and np.isfinite(line[key])
    ]
    plain(axes)
    if not points:
        return
    positions, values = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    span = max(len(values) // 40, 1)
    is_noisy = len(values) >= 80
    axes.plot(
        positions,
        values,
        color=_CURVE_COLOR,
        linewidth=0.7 if is_noisy else 1.6,
        alpha=0.3 if is_noisy else 1,
    )
    if is_noisy:
        kept = len(values) - len(values) % span
        middle = [array[:kept].reshape(-1, span).mean(axis=1) for array in (positions, values)]
        axes.plot(*middle, color=_CURVE_COLOR, linewidth=1.6)
        low, high = np.percentile(values, [0.5, 99.5])
        axes.set_ylim(*((low - 0.05 * (high - low), high + 0.05 * (high - low)) if high > low else (low - 1, low + 1)))
    positive = values.min() > 0
    if positive and np.percentile(values, 99) > 30 * np.percentile(values, 1):
        axes.set_yscale("log")
        axes.set_ylim(values.min() * 0.9, values.max() * 1.1)
    axes.set_xlabel(position_key or "report", fontsize=8, color=MUTED_COLOR)


def plain(axes: Axes, *, lines: Literal["x", "y", "both"] = "y", label_size: float = 8) -> None:
    """Draw axes as every chart has them: faint grid lines of one axis or both, no frame."""
    axes.grid(axis=lines, color=GRID_COLOR, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED_COLOR)
    axes.tick_params(colors=MUTED_COLOR, labelsize=label_size)
