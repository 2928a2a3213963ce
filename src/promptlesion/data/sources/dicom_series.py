"""CT slices as volumes: grouped, sorted along their normal, and refused where one is missing."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from promptlesion.data.sources.dicom_slices import SeriesIdentity, Slice
from promptlesion.data.spec import DatasetError

MIN_SLICES = 3
_REGULAR = 0.1
_ROUNDING_MM = 0.1  # some scanners write positions with one decimal
_GAP = 0.3  # a missing slice displaces its neighbours by half a spacing or more
_SHEAR_PIXELS = 0.5


@dataclass(frozen=True)
class Series:
    """Slices that make a volume, in order along their normal.

    `shifts` says by how many columns and rows each slice lies beside a stack at right angles on the first:
    zero everywhere unless the gantry was tilted. `notes` say what was joined, and name nobody.
    """

    identity: SeriesIdentity
    slices: tuple[Slice, ...]
    slice_spacing_mm: float
    shifts: tuple[tuple[float, float], ...]
    num_duplicates: int
    notes: tuple[str, ...] = ()

    @property
    def is_tilted(self) -> bool:
        """Whether the stack leans, by more than the rounding of its positions."""
        return bool(np.abs(np.array(self.shifts)).max() > _SHEAR_PIXELS)

    @property
    def tilt_degrees(self) -> float:
        """The angle between the slices' normal and the way from slice to slice."""
        rows_mm, columns_mm = self.slices[0].spacing_mm
        columns, rows = np.subtract(self.shifts[-1], self.shifts[0]) * (columns_mm, rows_mm)
        height = self.slice_spacing_mm * (len(self.slices) - 1)
        return float(np.degrees(np.arctan2(np.hypot(columns, rows), height)))

    @property
    def affine(self) -> Float64[np.ndarray, "4 4"]:
        """Column, row and slice indices of the untilted stack to LPS millimetres."""
        row, column, normal = axes(self.slices[0])
        rows_mm, columns_mm = self.slices[0].spacing_mm
        affine = np.eye(4)
        affine[:3, :3] = np.stack([row * columns_mm, column * rows_mm, normal * self.slice_spacing_mm], axis=1)
        affine[:3, 3] = self.slices[0].position_mm
        return affine

    def indices_of(self, points_mm: Float64[np.ndarray, "_ 3"]) -> Float64[np.ndarray, "_ 3"]:
        """Column, row and slice of points in the slices as they are in the files, tilted or not."""
        inverse = np.linalg.inv(self.affine)
        indices: np.ndarray = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
        if self.is_tilted:
            at = np.arange(len(self.slices))
            for axis, shift in enumerate(np.array(self.shifts).T):
                indices[:, axis] -= np.interp(indices[:, 2], at, shift)
        return indices

    def describe(self) -> str:
        """Name the series on the terminal: its folder, its description and how many slices it has."""
        return describe(self.identity, self.slices)


def describe(identity: SeriesIdentity, slices: Sequence[Slice]) -> str:
    """Name a series on the terminal: its folder, its description and how many slices it has."""
    title = f" {identity.description!r}" if identity.description else ""
    return f"{common_folder(one.path for one in slices)}: series{title} of {len(slices)} slices"


def common_folder(paths: Iterable[Path]) -> Path:
    """Return the innermost folder that holds all the files."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def axes(
    one: Slice,
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Directions of rows, columns and normal, made exactly orthonormal: headers round them."""
    row = np.array(one.directions[:3])
    row = row / np.linalg.norm(row)
    column = np.array(one.directions[3:])
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def sorted_along_normal(slices: Iterable[Slice]) -> list[Slice]:
    """Slices by position along their normal, whatever their files are called or numbered."""
    listed = list(slices)
    _, _, normal = axes(listed[0])
    return sorted(listed, key=lambda one: (float(normal @ one.position_mm), one.uid, str(one.path), one.frame))


def assemble(
    identity: SeriesIdentity, slices: Sequence[Slice], *, num_duplicates: int = 0, notes: tuple[str, ...] = ()
) -> Series:
    """Make a volume of sorted slices; raises `DatasetError` naming the series and the files around a gap."""
    lacking = [one.path for one in slices if not one.is_rescaled]
    if 0 < len(lacking) < len(slices):
        raise DatasetError(
            f"{describe(identity, slices)}: expected slope and intercept in every slice, as "
            f"{len(slices) - len(lacking)} have them, found none in {lacking[0]}{', …' if len(lacking) > 1 else ''}"
        )
    positions = positions_along_normal(slices)
    spacing = float(positions[-1] - positions[0]) / (len(slices) - 1)
    even = positions[0] + spacing * np.arange(len(slices))
    if np.abs(positions - even).max() > min(max(_REGULAR * spacing, _ROUNDING_MM), _GAP * spacing):
        raise DatasetError(f"{describe(identity, slices)}: {_gaps(slices, positions)}")
    row, column, _ = axes(slices[0])
    rows_mm, columns_mm = slices[0].spacing_mm
    offsets = np.array([one.position_mm for one in slices]) - np.array(slices[0].position_mm)
    shifts = np.stack([offsets @ row / columns_mm, offsets @ column / rows_mm], axis=1)
    straight = np.linspace(0.0, 1.0, len(slices))[:, None] * shifts[-1]
    beside = np.abs(shifts - straight).max(axis=1)
    if beside.max() > _SHEAR_PIXELS:
        worst = int(beside.argmax())
        raise DatasetError(
            f"{describe(identity, slices)}: expected slices one above the other, found {slices[worst].path} "
            f"{beside[worst]:.2g} pixels beside the others"
        )
    return Series(
        identity=identity,
        slices=tuple(slices),
        slice_spacing_mm=spacing,
        shifts=tuple((float(along), float(down)) for along, down in shifts),
        num_duplicates=num_duplicates,
        notes=notes,
    )


def positions_along_normal(slices: Sequence[Slice]) -> Float64[np.ndarray, " slice"]:
    """Where slices lie along the normal of the first, in millimetres."""
    _, _, normal = axes(slices[0])
    return np.asarray(np.array([one.position_mm for one in slices]) @ normal)


def _gaps(slices: Sequence[Slice], positions: Float64[np.ndarray, " slice"]) -> str:
    """What is wrong with the positions: slices missing between which files, or no even spacing at all."""
    steps = np.diff(positions)
    usual = float(np.median(steps))
    if np.abs(steps / steps.min() - np.rint(steps / steps.min())).max() <= _REGULAR:
        usual = float(np.median(steps[steps < 1.5 * steps.min()]))
    worst = np.flatnonzero(np.abs(steps - usual) > _REGULAR * usual)
    if not worst.size:
        worst = np.array([int(np.abs(steps - usual).argmax())])
    multiples = np.rint(steps / usual)
    is_missing = bool((multiples[worst] >= 2).all() and np.abs(steps / usual - multiples).max() <= 2 * _REGULAR)
    listed = []
    for index in worst[:3].tolist():
        lost = f", {int(multiples[index]) - 1} slice(s) missing," if is_missing else ""
        listed.append(
            f"{steps[index]:.4g} mm{lost} between {slices[index].path} (at {positions[index]:.6g} mm) and "
            f"{slices[index + 1].path} (at {positions[index + 1]:.6g} mm)"
        )
    more = f", and {len(worst) - 3} more such gaps" if len(worst) > 3 else ""
    return f"expected a slice every {usual:.4g} mm, found {'; '.join(listed)}{more}"
