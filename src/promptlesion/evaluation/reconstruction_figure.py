"""The picture of a reconstruction: real, reconstructed, sampled down and up, and what each gets wrong."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from promptlesion.evaluation.palette import MUTED_COLOR, TEXT_COLOR
from promptlesion.evaluation.reconstruction import ComparedSlice, ReconstructionRow

_CELL_INCHES = 2.3
_DIFFERENCE_QUANTILE = 0.99
_DISPLAYED_QUANTILES = (0.01, 0.995)


def reconstruction_figure(rows: Sequence[ReconstructionRow]) -> Figure:
    """Draw up to three scans of every dataset, a row each, the models side by side.

    Columns: the scan, each model's reconstruction, trilinear sampling, and the difference of each of these to the
    scan. Axial, anterior up, the patient's right on the left. Differences have one scale a row.
    """
    by_scan: dict[tuple[str, str], dict[str, ComparedSlice]] = {}
    for row in rows:
        for cut in row.slices:
            by_scan.setdefault((cut.dataset, cut.case), {})[row.model] = cut
    models = list(dict.fromkeys(row.model for row in rows))
    sampled = f"trilinear {rows[0].downsampling}× down and up"
    names = [*("/".join(Path(model).parts[-2:]) for model in models), sampled]
    titles = ["scan", *names, *(f"{name}\n− scan" for name in names)]
    height = sum(_CELL_INCHES * _height_over_width(next(iter(shown.values()))) + 0.1 for shown in by_scan.values())
    size = (_CELL_INCHES * len(titles) + 1.0, height + 0.8)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    figure.suptitle("Reconstruction of scans", fontsize=13, color=TEXT_COLOR)
    panels = figure.subplots(len(by_scan), len(titles), squeeze=False)
    for index, (line, ((dataset, case), shown)) in enumerate(zip(panels, by_scan.items(), strict=True)):
        _draw_scan(figure, list(line), [shown[model] for model in models if model in shown])
        low, high = _display_window_hu(next(iter(shown.values())))
        label = f"{Path(dataset).name}\n{case}\n{low:.0f} to {high:.0f} HU"
        line[0].set_ylabel(label, fontsize=8, color=TEXT_COLOR)
        if index == 0:
            for axes, title in zip(line, titles, strict=True):
                axes.set_title(title, fontsize=9, color=TEXT_COLOR)
    return figure


def _draw_scan(figure: Figure, line: Sequence[Axes], shown: Sequence[ComparedSlice]) -> None:
    first = shown[0]
    compared = [*(each.reconstruction for each in shown), first.trilinear]
    low, high = _display_window_hu(first)
    for axes, plane in zip(line, (first.original, *compared), strict=False):
        _show(axes, plane, first.pixel_mm, cmap="gray", low=low, high=high)
    differences = [plane - first.original for plane in compared]
    reach = max(1.0, *(float(np.quantile(np.abs(plane), _DIFFERENCE_QUANTILE)) for plane in differences))
    for axes, plane in zip(line[1 + len(compared) :], differences, strict=True):
        image = _show(axes, plane, first.pixel_mm, cmap="RdBu_r", low=-reach, high=reach)
    bar = figure.colorbar(image, ax=line[-1], shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("HU", fontsize=8, color=MUTED_COLOR)


def _display_window_hu(shown: ComparedSlice) -> tuple[float, float]:
    """Choose what is black and white: the slice's own range, within the window the networks see."""
    low, high = np.quantile(shown.original, _DISPLAYED_QUANTILES)
    return (float(low), float(high)) if high > low else shown.window_hu


def _height_over_width(shown: ComparedSlice) -> float:
    (width, height), (x_mm, y_mm) = shown.original.shape, shown.pixel_mm
    return float(height * y_mm / (width * x_mm))


def _show(
    axes: Axes,
    plane: Shaped[np.ndarray, "x y"],
    pixel_mm: tuple[float, float],
    *,
    cmap: str,
    low: float,
    high: float,
) -> AxesImage:
    upright = plane.T[::-1, ::-1]
    image = axes.imshow(
        upright, cmap=cmap, vmin=low, vmax=high, aspect=pixel_mm[1] / pixel_mm[0], interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return image
