"""The check's two charts: how large the lesions are beside a latent voxel, and how bright beside their host."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from matplotlib.figure import Figure

from promptlesion.check.intensity import HU_OF_BIN
from promptlesion.check.lesions import NetworkGrid, TypeFacts
from promptlesion.data.spec import DatasetSpec
from promptlesion.evaluation.figures import plain
from promptlesion.evaluation.palette import MUTED_COLOR, REAL_COLOR, TEXT_COLOR, lesion_colors
from promptlesion.evaluation.wording import readable

_BIN_HU = 10
_RANGE_OPACITY = 0.12


def size_figure(types: Sequence[TypeFacts], spec: DatasetSpec, grid: NetworkGrid) -> Figure:
    """Draw every lesion by its diameter, a row a type, with the range of lesions.toml and the latent voxel."""
    figure = Figure(figsize=(8.2, 0.75 + 0.55 * len(types)), layout="constrained")
    axes = figure.subplots()
    colors = lesion_colors([facts.name for facts in types])
    for row, (facts, lesion_type) in enumerate(zip(types, spec.lesions, strict=True)):
        low, high = lesion_type.diameter_mm
        axes.fill_betweenx([row - 0.38, row + 0.38], low, high, color=colors[facts.name], alpha=_RANGE_OPACITY, lw=0)
        spread = np.random.default_rng(row).uniform(-0.22, 0.22, len(facts.diameters_mm))
        axes.plot(facts.diameters_mm, row + spread, "o", color=colors[facts.name], markersize=4.5, alpha=0.75, mew=0)
    axes.axvline(grid.latent_edge_mm, color=TEXT_COLOR, linewidth=1.3, linestyle=(0, (4, 2)))
    axes.annotate(
        " latent voxel",
        (grid.latent_edge_mm, 1.0),
        xycoords=("data", "axes fraction"),
        ha="left",
        va="bottom",
        fontsize=8.5,
        color=TEXT_COLOR,
    )
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(types)), [f"{readable(facts.name)}, {facts.num_lesions}" for facts in types], fontsize=9.5
    )
    axes.set_ylim(len(types) - 0.5, -0.5)
    axes.set_xlabel("diameter of the sphere of equal volume, mm; shaded: the range of lesions.toml", fontsize=9)
    shown = [*(d for facts in types for d in facts.diameters_mm), grid.latent_edge_mm]
    shown += [end for lesion_type in spec.lesions for end in lesion_type.diameter_mm]
    axes.set_xlim(0.8 * min(shown), 1.25 * max(shown))
    ticks = [
        tick
        for tick in (0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300)
        if 0.8 * min(shown) <= tick <= 1.25 * max(shown)
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    plain(axes, lines="x", label_size=8.5)
    return figure


def hu_figure(types: Sequence[TypeFacts], spec: DatasetSpec) -> Figure:
    """Draw the HU of all voxels of every type beside its host's, with the type's range and the window."""
    figure = Figure(figsize=(3.7 * len(types) + 0.4, 2.7), layout="constrained")
    panels = figure.subplots(1, len(types), squeeze=False)[0]
    colors = lesion_colors([facts.name for facts in types])
    for axes, facts, lesion_type in zip(panels, types, spec.lesions, strict=True):
        low, high = spec.window_hu
        margin = 0.08 * (high - low)
        axes.axvspan(*lesion_type.hu, color=colors[facts.name], alpha=_RANGE_OPACITY, lw=0)
        hosts = ", ".join(readable(host) for host in facts.hosts)
        for counts, color, name in (
            (facts.host_hu_counts, REAL_COLOR, hosts),
            (facts.hu_counts, colors[facts.name], readable(facts.name)),
        ):
            if counts.any():
                places, shares = _binned(counts, low - margin, high + margin)
                axes.fill_between(places, shares, step="mid", color=color, alpha=0.25, lw=0)
                axes.step(places, shares, where="mid", color=color, linewidth=1.4, label=name)
        for end in (low, high):
            axes.axvline(end, color=TEXT_COLOR, linewidth=1.1, linestyle=(0, (4, 2)))
        axes.set_title(readable(facts.name), fontsize=10.5, color=TEXT_COLOR, loc="left")
        axes.set_xlabel("HU; dashed: the window", fontsize=9, color=MUTED_COLOR)
        axes.set_ylabel("share of voxels", fontsize=9, color=MUTED_COLOR)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(bottom=0, top=1.3 * axes.get_ylim()[1])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="upper right", edgecolor="none", framealpha=0.85)
        plain(axes, label_size=8.5)
    return figure


def _binned(counts: Int64[np.ndarray, " hu"], low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return bin centres and shares; what lies beyond the ends is counted in the outermost bins."""
    edges = np.arange(low, high + _BIN_HU, _BIN_HU)
    places = np.clip(HU_OF_BIN, edges[0], edges[-1] - 1e-6)
    binned, _ = np.histogram(places, bins=edges, weights=counts)
    return (edges[:-1] + edges[1:]) / 2, binned / counts.sum()
