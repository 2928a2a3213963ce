"""The pictures of scans: the montage of the paper's Figure 1, and a whole slice before and after."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Float64, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.palette import MUTED_COLOR, TEXT_COLOR, Color, label_colors, lesion_colors
from promptlesion.evaluation.slice_changes import SliceChange, display_window_hu
from promptlesion.evaluation.wording import readable

_ROWS = ("healthy scan", "label", "synthetic scan", "synthetic mask")
_CELL_INCHES = 1.3
_GAP_INCHES = 0.05
_GROUP_GAP_INCHES = 0.22
_LEFT_INCHES = 0.34
_TOP_INCHES = 0.66
_BOTTOM_INCHES = 0.6
_NOTE_INCHES = 0.2
_DIMMED = 0.5
_OPACITY = 0.8


def montage_figure(columns: Sequence[SliceChange], dataset: Dataset) -> Figure:
    """Draw the paper's Figure 1: rows healthy scan, label, synthetic scan, synthetic mask; a column a lesion.

    `dataset` gives the window, the label names and the lesion types. Axial, anterior up, the patient's right
    on the left, as radiologists look at it.
    """
    if not columns:
        raise ValueError("montage: expected at least one synthetic lesion, got none")
    groups = [(name, list(members)) for name, members in groupby(columns, key=lambda column: column.lesion_type)]
    step = _CELL_INCHES + _GAP_INCHES
    width = _LEFT_INCHES + len(columns) * step + (len(groups) - 1) * _GROUP_GAP_INCHES + _GAP_INCHES
    height = _TOP_INCHES + len(_ROWS) * step + _BOTTOM_INCHES
    figure = Figure(figsize=(width, height), facecolor="white")
    colors = label_colors(dataset.labels, dataset.lesion_labels)
    window_hu = display_window_hu(columns, dataset.spec.window_hu)
    left = _LEFT_INCHES
    for name, members in groups:
        span = len(members) * step - _GAP_INCHES
        _group_title(figure, readable(name), lesion_colors(_names(dataset))[name], left, span, width, height)
        for column in members:
            for row, pixels in enumerate(_cells(column, dataset, colors, window_hu)):
                bottom = height - _TOP_INCHES - (row + 1) * step + _GAP_INCHES
                box = (left / width, bottom / height, _CELL_INCHES / width, _CELL_INCHES / height)
                axes = figure.add_axes(box)
                _show(axes, pixels, column.pixel_mm, is_label=row in (1, 3))
                if row == 0:
                    axes.set_title(f"mean {column.mean_hu:.0f} HU", fontsize=9, color=TEXT_COLOR, pad=3)
                if left == _LEFT_INCHES:
                    axes.set_ylabel(_ROWS[row], fontsize=10, color=TEXT_COLOR, labelpad=5)
            left += step
        left += _GROUP_GAP_INCHES
    _legend(figure, dataset, colors, columns)
    low, high = window_hu
    note = f"window {low:.0f} to {high:.0f} HU"
    figure.text(1 - _GAP_INCHES / width, 0.06 / height, note, ha="right", fontsize=8, color=MUTED_COLOR)
    return figure


def overview_figure(change: SliceChange, dataset: Dataset) -> Figure:
    """Draw a whole axial slice before and after, a box around the new lesion, and what changed in HU."""
    low, high = display_window_hu([change], dataset.spec.window_hu)
    difference = _upright(change.synthetic - change.source)
    reach = max(float(np.abs(difference).max()), 1.0)
    extent_x, extent_y = (n * mm for n, mm in zip(change.source.shape, change.pixel_mm, strict=True))
    side = 3.3
    height = side * extent_y / extent_x
    figure = Figure(figsize=(3 * side + 0.9, height + 0.42), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 3)
    titles = ("source scan", f"with a synthetic {readable(change.lesion_type)}", "change (HU)")
    color = lesion_colors(_names(dataset))[change.lesion_type]
    for axes, title, pixels in zip(
        panels, titles, (_upright(change.source), _upright(change.synthetic), difference), strict=True
    ):
        is_change = title == titles[2]
        image = axes.imshow(
            pixels,
            cmap="RdBu_r" if is_change else "gray",
            vmin=-reach if is_change else low,
            vmax=reach if is_change else high,
            aspect=change.pixel_mm[1] / change.pixel_mm[0],
            interpolation="nearest" if is_change else "bilinear",
        )
        axes.set_title(title, fontsize=11, color=TEXT_COLOR)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(MUTED_COLOR)
        axes.add_patch(_box_around(_upright(change.lesion_mask), color))
        if is_change:
            bar = figure.colorbar(image, ax=axes, shrink=0.85, pad=0.02)
            bar.ax.tick_params(labelsize=8)
    return figure


def _names(dataset: Dataset) -> list[str]:
    return [lesion.name for lesion in dataset.spec.lesions]


def _cells(
    column: SliceChange, dataset: Dataset, colors: dict[int, Color], window_hu: tuple[float, float]
) -> list[Float64[np.ndarray, "y x 3"]]:
    scans = [_gray(_upright(array), *window_hu) for array in (column.source, column.synthetic)]
    label = {lesion.name: lesion.label for lesion in dataset.spec.lesions}[column.lesion_type]
    labels = _upright(column.labels)
    with_lesion = np.where(_upright(column.lesion_mask), np.uint8(label), labels)
    return [
        scans[0],
        _painted(scans[0], labels, colors),
        scans[1],
        _painted(scans[1], with_lesion, colors, only=_upright(column.lesion_mask)),
    ]


def _upright(plane: Shaped[np.ndarray, "x y"]) -> Shaped[np.ndarray, "y x"]:
    """Turn a RAS+ axial plane so that anterior is up and the patient's right is on the left."""
    return plane.T[::-1, ::-1]


def _gray(plane: Shaped[np.ndarray, "y x"], low: float, high: float) -> Float64[np.ndarray, "y x 3"]:
    brightness = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    return np.repeat(brightness[..., None], 3, axis=2)


def _painted(
    scan: Float64[np.ndarray, "y x 3"],
    labels: UInt8[np.ndarray, "y x"],
    colors: dict[int, Color],
    only: Bool[np.ndarray, "y x"] | None = None,
) -> Float64[np.ndarray, "y x 3"]:
    painted = scan * _DIMMED
    for label, color in colors.items():
        here = labels == label if only is None else (labels == label) & only
        painted[here] = (1 - _OPACITY) * painted[here] + _OPACITY * np.array(color)
    return painted


def _show(axes: Axes, pixels: Float64[np.ndarray, "y x 3"], pixel_mm: tuple[float, float], *, is_label: bool) -> None:
    interpolation = "nearest" if is_label else "bicubic"
    axes.imshow(pixels, aspect="auto", interpolation=interpolation)
    axes.set_box_aspect(pixels.shape[0] * pixel_mm[1] / (pixels.shape[1] * pixel_mm[0]))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _group_title(figure: Figure, title: str, color: str, left: float, span: float, width: float, height: float) -> None:
    line_height = height - 0.36
    figure.text(
        (left + span / 2) / width,
        (line_height + 0.07) / height,
        title,
        ha="center",
        fontsize=12,
        color=TEXT_COLOR,
    )
    bar = Rectangle((left / width, line_height / height), span / width, 0.04 / height, color=color, lw=0)
    figure.add_artist(bar)


def _legend(figure: Figure, dataset: Dataset, colors: dict[int, Color], columns: Sequence[SliceChange]) -> None:
    shown = {int(label) for column in columns for label in np.unique(column.labels)}
    painted = {column.lesion_type for column in columns}
    shown |= {lesion.label for lesion in dataset.spec.lesions if lesion.name in painted}
    handles = [
        Patch(color=colors[label], label=readable(name))
        for name, label in dataset.labels.items()
        if label in shown and label in colors
    ]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, _NOTE_INCHES / float(figure.get_figheight())),  # above the note, also where it is narrow
        ncols=len(handles),
        frameon=False,
        fontsize=10,
        labelcolor=TEXT_COLOR,
    )


def _box_around(mask: Bool[np.ndarray, "y x"], color: str) -> Rectangle:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    margin = 6
    corner = (columns[0] - margin, rows[0] - margin)
    size = (columns[-1] - columns[0] + 2 * margin, rows[-1] - rows[0] + 2 * margin)
    return Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=1.6)
