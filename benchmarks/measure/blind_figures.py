"""Pairs of a real and a painted lesion as pictures: one of each type to judge, and one of all with the answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from scipy import ndimage

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.palette import TEXT_COLOR
from promptlesion.evaluation.wording import readable

_SMALLEST_FIELD_MM = 24.0
_FIELD_PER_DIAMETER = 3.0
_FIELD_PER_EXTENT = 1.6
_LOWEST_HU = -150.0
"""Below fat: lung and air beside a lesion are black."""
_OUTLINE_COLOR = "#F0C419"
_LETTERS = ("A", "B")


@dataclass(frozen=True, eq=False)
class Tile:
    """A lesion's whole axial slice, and where in it the lesion lies."""

    case: str
    diameter_mm: float
    hu: Float32[np.ndarray, "x y"]
    mask: Bool[np.ndarray, "x y"]
    pixel_mm: tuple[float, float]

    @property
    def box_mm(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the lesion begins and ends, along x and along y."""
        across, along = np.nonzero(self.mask)
        width, height = self.pixel_mm
        return _ends(across, width), _ends(along, height)


@dataclass(frozen=True)
class Pair:
    """A and B, of which one is painted."""

    tiles: tuple[Tile, Tile]
    painted: Literal["A", "B"]

    @property
    def field_mm(self) -> float:
        """Side of the field that both are shown in."""
        extents = [end - start for tile in self.tiles for start, end in tile.box_mm]
        diameter = max(tile.diameter_mm for tile in self.tiles)
        return max(_SMALLEST_FIELD_MM, _FIELD_PER_DIAMETER * diameter, _FIELD_PER_EXTENT * max(extents))


def cut_tile(dataset: Dataset, lesion: LesionCrop) -> Tile:
    """Read the axial slice in which a lesion's cross-section is largest."""
    image, _ = read_case(dataset, dataset.case(lesion.case))
    depth = int(lesion.mask.sum(axis=(0, 1)).argmax())
    mask = np.zeros(image.shape[:2], dtype=bool)
    start_x, start_y, start_z = lesion.start_voxel
    size_x, size_y = lesion.mask.shape[:2]
    mask[start_x : start_x + size_x, start_y : start_y + size_y] = lesion.mask[:, :, depth]
    hu = image.array[:, :, start_z + depth].astype(np.float32)
    return Tile(lesion.case, diameter_mm(lesion), hu, mask, image.spacing_mm[:2])


def diameter_mm(lesion: LesionCrop) -> float:
    """Diameter of the sphere of equal volume."""
    return sphere_diameter_mm(int(lesion.mask.sum()) * math.prod(lesion.spacing_mm))


def window_hu(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Return one window for all tiles of a type: from fat, or what is darkest, up to lesions and filled vessels.

    The brightest twentieth of the lesions may be all white, and that of their surroundings.
    """
    around, inside = [], []
    for pair in pairs:
        for tile in pair.tiles:
            (left, right), (back, front) = _limits_mm(tile, pair.field_mm)
            across, along = (np.arange(n) * mm for n, mm in zip(tile.hu.shape, tile.pixel_mm, strict=True))
            shown = np.ix_((across > left) & (across < right), (along > back) & (along < front))
            around.append(tile.hu[shown].ravel())
            inside.append(tile.hu[tile.mask])
    low = max(_LOWEST_HU, float(np.percentile(np.concatenate(around), 1)))
    brightest = max(float(np.percentile(np.concatenate(values), 95)) for values in (inside, around))
    return low, max(brightest, low + 1.0)


def blind_figure(lesion_type: str, pairs: Sequence[Pair]) -> Figure:
    """Draw the pairs of a type, two in a row: A beside B, and below them the same with the masks' outlines."""
    window = window_hu(pairs)
    num_rows = math.ceil(len(pairs) / 2)
    figure = Figure(figsize=(14.4, 7.7 * num_rows + 0.5), facecolor="white", layout="constrained")
    title = f"{readable(lesion_type)}: which is painted, A or B?  (window {window[0]:.0f} to {window[1]:.0f} HU)"
    figure.suptitle(title, fontsize=17, color=TEXT_COLOR)
    blocks = figure.subfigures(num_rows, 2, squeeze=False, wspace=0.02, hspace=0.02).ravel()
    for number, (block, pair) in enumerate(zip(blocks, pairs, strict=False), start=1):
        block.suptitle(f"pair {number}  (field {pair.field_mm:.0f} mm)", fontsize=14, color=TEXT_COLOR)
        axes = block.subplots(2, 2)
        for column, tile in enumerate(pair.tiles):
            axes[0, column].set_title(f"{number} {_LETTERS[column]}", fontsize=15, color=TEXT_COLOR)
            for row in (0, 1):
                _show(axes[row, column], tile, pair.field_mm, window, is_outlined=row == 1)
    return figure


def montage_figure(pairs_by_type: Mapping[str, Sequence[Pair]]) -> Figure:
    """Draw the pairs of all types, two rows a type (plain, outlined), and the answers in a line below."""
    num_columns = 2 * max(map(len, pairs_by_type.values()))
    figure = Figure(
        figsize=(1.9 * num_columns, 4.25 * len(pairs_by_type) + 0.5), facecolor="white", layout="constrained"
    )
    blocks = figure.subfigures(len(pairs_by_type), 1, squeeze=False)[:, 0]
    for block, (name, pairs) in zip(blocks, pairs_by_type.items(), strict=True):
        _montage_rows(block, name, pairs, num_columns)
    return figure


def _montage_rows(block: SubFigure, name: str, pairs: Sequence[Pair], num_columns: int) -> None:
    window = window_hu(pairs)
    block.suptitle(f"{readable(name)}  (window {window[0]:.0f} to {window[1]:.0f} HU)", fontsize=13, color=TEXT_COLOR)
    axes = block.subplots(2, num_columns, squeeze=False)
    for each in axes.ravel():
        each.set_axis_off()
    for number, pair in enumerate(pairs):
        for column, (letter, tile) in enumerate(zip(_LETTERS, pair.tiles, strict=True), start=2 * number):
            axes[0, column].set_title(f"{number + 1} {letter}", fontsize=11, color=TEXT_COLOR)
            for row in (0, 1):
                _show(axes[row, column], tile, pair.field_mm, window, is_outlined=row == 1)
    painted = ", ".join(f"{number} {pair.painted}" for number, pair in enumerate(pairs, start=1))
    block.supxlabel(f"painted: {painted}", fontsize=11, color=TEXT_COLOR)


def _show(axes: Axes, tile: Tile, field_mm: float, window: tuple[float, float], *, is_outlined: bool) -> None:
    """Draw a tile as radiologists look at it: front up, the patient's right on the left; beyond the scan is black.

    The outline only says where the lesion lies: holes in the mask are not drawn.
    """
    sides = [n * mm for n, mm in zip(tile.hu.shape, tile.pixel_mm, strict=True)]
    extent = (0.0, sides[0], 0.0, sides[1])
    low, high = window
    axes.imshow(tile.hu.T, cmap="gray", vmin=low, vmax=high, extent=extent, origin="lower", interpolation="bicubic")
    if is_outlined:
        across, along = (
            (np.arange(-1, n + 1) + 0.5) * mm for n, mm in zip(tile.mask.shape, tile.pixel_mm, strict=True)
        )
        closed = np.pad(ndimage.binary_fill_holes(tile.mask), 1).T.astype(float)
        axes.contour(across, along, closed, levels=[0.5], colors=[_OUTLINE_COLOR], linewidths=0.9)
    (left, right), (back, front) = _limits_mm(tile, field_mm)
    axes.set(xlim=(right, left), ylim=(back, front), xticks=[], yticks=[], aspect="equal")
    axes.set_axis_on()
    axes.set_facecolor("black")
    axes.spines[:].set_visible(False)


def _limits_mm(tile: Tile, field_mm: float) -> list[tuple[float, float]]:
    middles = [(start + end) / 2 for start, end in tile.box_mm]
    return [(middle - field_mm / 2, middle + field_mm / 2) for middle in middles]


def _ends(places: Int64[np.ndarray, " voxels"], side_mm: float) -> tuple[float, float]:
    return float(places.min()) * side_mm, float(places.max() + 1) * side_mm
