"""The contact sheet of a cohort: every lesion before and after, to be looked at before anything is trained on it."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from promptlesion.data.dataset import Dataset
from promptlesion.evaluation.figures import save_figure
from promptlesion.evaluation.lesion_tiles import Tile, choose_evenly, cut_tiles, listed_lesions
from promptlesion.evaluation.palette import MUTED_COLOR, TEXT_COLOR, lesion_colors
from promptlesion.evaluation.wording import readable

_PANEL_INCHES = 1.25
_GAP_SHARE = 0.025
_CAPTION_INCHES = 0.4
_TILE_GAP_INCHES = 0.16
_TITLE_INCHES = 0.8
_MARGIN_INCHES = 0.2
_DOTS_PER_INCH = 130
_LONGEST_ORIGIN = 30
_MOST_TILES = 48


def contact_sheet(source: Dataset, synthetic: Dataset, path: Path) -> None:
    """Draw a PNG with a tile for every lesion of a cohort: before, after, and after with the lesion outlined.

    The slice with most of the lesion, cut across the scan's thickest voxels (axial where they are alike), in the
    dataset's HU window. Of more than 48 lesions an even choice is shown, every type among them. One case is
    in memory at a time; the file appears whole or not at all.

    Raises:
        DatasetError: there is no `provenance.jsonl`, or it tells of a lesion that the label maps do not have.
    """
    listed = listed_lesions(synthetic)
    chosen = choose_evenly(listed, [lesion.name for lesion in synthetic.spec.lesions], _MOST_TILES)
    tiles = [
        tile
        for case, members in groupby(chosen, key=lambda one: one.case)
        for tile in cut_tiles(source, synthetic, list(members))
    ]
    order = {lesion.name: index for index, lesion in enumerate(synthetic.spec.lesions)}
    tiles.sort(key=lambda tile: order[tile.lesion.lesion_type])
    save_figure(_sheet(tiles, synthetic, num_lesions=len(listed)), path, dots_per_inch=_DOTS_PER_INCH)


def _sheet(tiles: Sequence[Tile], dataset: Dataset, *, num_lesions: int) -> Figure:
    num_columns = max(1, min(4, math.ceil(math.sqrt(len(tiles) / 2.5))))
    num_rows = max(1, math.ceil(len(tiles) / num_columns))
    tile_width = _PANEL_INCHES * (3 + 2 * _GAP_SHARE)
    step = (tile_width + _TILE_GAP_INCHES, _PANEL_INCHES + _CAPTION_INCHES + _TILE_GAP_INCHES)
    width = max(2 * _MARGIN_INCHES + num_columns * step[0] - _TILE_GAP_INCHES, 7.6)
    height = _TITLE_INCHES + num_rows * step[1] + _MARGIN_INCHES
    figure = Figure(figsize=(width, height), facecolor="white")
    _title(figure, dataset, num_shown=len(tiles), num_lesions=num_lesions)
    colors = lesion_colors([lesion.name for lesion in dataset.spec.lesions])
    for index, tile in enumerate(tiles):
        row, column = divmod(index, num_columns)
        left = _MARGIN_INCHES + column * step[0]
        bottom = height - _TITLE_INCHES - row * step[1] - _CAPTION_INCHES - _PANEL_INCHES
        axes = figure.add_axes((left / width, bottom / height, tile_width / width, _PANEL_INCHES / height))
        _draw(axes, tile, dataset, colors[tile.lesion.lesion_type])
    return figure


def _title(figure: Figure, dataset: Dataset, *, num_shown: int, num_lesions: int) -> None:
    width, height = figure.get_size_inches()
    low, high = dataset.spec.window_hu
    shown = "all" if num_shown == num_lesions else f"{num_shown} of"
    painted = f"{shown} {num_lesions} synthetic lesions" if num_lesions else "no lesion was accepted"
    left = _MARGIN_INCHES / width
    figure.text(
        left, 1 - 0.3 / height, _drawable(dataset.root.resolve().name), fontsize=13, color=TEXT_COLOR, parse_math=False
    )
    note = f"{painted}  ·  before, after, after with its outline  ·  window {low:.0f} to {high:.0f} HU"
    figure.text(left, 1 - 0.53 / height, note, fontsize=8.5, color=MUTED_COLOR)


def _draw(axes: Axes, tile: Tile, dataset: Dataset, color: str) -> None:
    low, high = dataset.spec.window_hu
    gap = _GAP_SHARE * tile.field_mm
    axes.set_axis_off()
    rows, columns = tile.after.shape
    for panel, pixels in enumerate((tile.before, tile.after, tile.after)):
        start = panel * (tile.field_mm + gap)
        field = Rectangle((start, 0), tile.field_mm, tile.field_mm, facecolor="black", linewidth=0, zorder=-1)
        axes.add_patch(field)
        left, top = start + tile.corner_mm[1], tile.corner_mm[0]
        extent = (left, left + columns * tile.pixel_mm[1], top + rows * tile.pixel_mm[0], top)
        image = axes.imshow(
            pixels, extent=extent, cmap="gray", vmin=low, vmax=high, interpolation="bicubic", aspect="auto"
        )
        image.set_clip_path(field)
    axes.set_xlim(0, 3 * tile.field_mm + 2 * gap)
    axes.set_ylim(tile.field_mm, 0)
    across = left + (np.arange(-1, columns + 1) + 0.5) * tile.pixel_mm[1]
    down = top + (np.arange(-1, rows + 1) + 0.5) * tile.pixel_mm[0]
    closed = np.pad(tile.mask, 1).astype(np.float32)
    axes.contour(across, down, closed, levels=[0.5], colors=[color], linewidths=1.1)
    _scale_bar(axes, tile.field_mm)
    lesion = tile.lesion
    origin = lesion.mask_origin
    origin = origin if len(origin) <= _LONGEST_ORIGIN else origin[: _LONGEST_ORIGIN - 1] + "…"
    for text, place, size, text_color in (
        ("■", (0.0, 1.17), 8.0, color),
        (f"{readable(lesion.lesion_type)}   {_drawable(lesion.case)}", (0.035, 1.17), 8.0, TEXT_COLOR),
        (
            f"{lesion.diameter_mm:.1f} mm  ·  {lesion.mean_hu:.0f} HU  ·  {_drawable(origin)}",
            (0.0, 1.04),
            7.5,
            MUTED_COLOR,
        ),
    ):
        axes.annotate(
            text,
            place,
            xycoords="axes fraction",
            fontsize=size,
            color=text_color,
            annotation_clip=False,
            parse_math=False,
        )


def _scale_bar(axes: Axes, field_mm: float) -> None:
    """Draw a bar of 5, 10, 20 or 50 mm, the longest that a third of the field holds."""
    bar_mm = max((length for length in (10, 20, 50) if 3 * length <= field_mm), default=5)
    left, bottom = 0.04 * field_mm, 0.95 * field_mm
    edge = [withStroke(linewidth=2.4, foreground="black")]
    axes.add_line(Line2D((left, left + bar_mm), (bottom, bottom), color="white", linewidth=1.4, path_effects=edge))
    label = axes.text(left, bottom - 0.025 * field_mm, f"{bar_mm} mm", fontsize=5.5, color="white", va="bottom")
    label.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def _drawable(text: str) -> str:
    """Return a text that matplotlib's own font has every character of."""
    return "".join(character if character.isascii() or character == "…" else "?" for character in text)
