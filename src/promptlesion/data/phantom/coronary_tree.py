"""A subject's coronary arteries: which vessels run where, how wide they are, and where plaque has formed."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from promptlesion.data.phantom.artery import Artery
from promptlesion.data.phantom.centerline import Centerline, HeartSurface, ostium, walk
from promptlesion.data.phantom.geometry import Grid
from promptlesion.data.phantom.heart import Heart
from promptlesion.data.phantom.plaque import PlaqueKind, draw_plaque

_SMALLEST_PLAQUE_RADIUS_MM = 1.1
_EDGE_MM = 4.0


def grow_arteries(
    generator: np.random.Generator, heart: Heart, grid: Grid, *, num_calcified: int, num_non_calcified: int
) -> list[Artery]:
    """Left and right coronary arteries with branches, and the asked-for plaques in their walls."""
    arteries = _grow_tree(generator, heart, grid)
    wanted: dict[PlaqueKind, int] = {"non_calcified": num_non_calcified, "calcified": num_calcified}
    for kind, count in wanted.items():
        for _ in range(count):
            _place_plaque(generator, arteries, grid, kind)
    return arteries


class _Tree:
    """Arteries grown so far, each new one keeping clear of them."""

    def __init__(self, generator: np.random.Generator, heart: Heart, grid: Grid) -> None:
        self._generator = generator
        self._surface = HeartSurface(heart)
        self._half_extent_mm = grid.half_extent_mm
        self.arteries: list[Artery] = []

    def grow(
        self,
        start_mm: Float[np.ndarray, "3"],
        direction: Sequence[float] | Float[np.ndarray, "3"],
        *,
        length_mm: float,
        radius_mm: float,
    ) -> Artery | None:
        """Adds an artery that starts at a point; None where it would leave the field of view at once."""
        others = [artery.centerline.positions_mm[::10] for artery in self.arteries]
        line = walk(
            self._generator,
            self._surface,
            start_mm,
            np.array(direction) + self._generator.normal(0, 0.12, 3),
            length_mm=length_mm,
            clearance_mm=radius_mm + self._generator.uniform(1.7, 2.4),
            half_extent_mm=self._half_extent_mm,
            others_mm=np.concatenate(others) if others else np.zeros((0, 3)),
        )
        if line is None:
            return None
        self.arteries.append(_artery(self._generator, line, radius_mm))
        return self.arteries[-1]

    def branch(self, parent: Artery, *, arc_mm: float, radius_mm: float) -> None:
        """Adds a side branch that leaves its parent at a random angle, where the parent is long enough."""
        line = parent.centerline
        if arc_mm > line.length_mm - 6:
            return
        index = int(np.searchsorted(line.arc_mm, arc_mm))
        angle = self._generator.choice([-1.0, 1.0]) * self._generator.uniform(0.6, 1.0)
        side = np.cross(line.tangents[index], line.normals[index])
        direction = np.cos(angle) * line.tangents[index] + np.sin(angle) * side
        length_mm = self._generator.uniform(30, 50)
        self.grow(line.positions_mm[index], direction, length_mm=length_mm, radius_mm=radius_mm)


def _grow_tree(generator: np.random.Generator, heart: Heart, grid: Grid) -> list[Artery]:
    tree, uniform = _Tree(generator, heart, grid), generator.uniform
    start = ostium(heart, (-0.8, 0.55, 0.0), uniform(12.0, 16.0))
    left = tree.grow(start, (-0.7, 0.6, -0.35), length_mm=uniform(75, 95), radius_mm=uniform(1.9, 2.2))
    if left is not None:
        split = _at(left.centerline, uniform(9, 13))
        tree.grow(split, (-0.75, -0.6, -0.3), length_mm=uniform(55, 80), radius_mm=uniform(1.6, 1.95))
        for _ in range(int(generator.integers(1, 3))):
            tree.branch(left, arc_mm=uniform(18, 38), radius_mm=uniform(1.2, 1.5))
    start = ostium(heart, (0.75, 0.65, 0.0), uniform(9.0, 14.0))
    right = tree.grow(start, (0.7, 0.6, -0.35), length_mm=uniform(65, 90), radius_mm=uniform(1.75, 2.15))
    if right is not None and uniform() < 0.5:
        tree.branch(right, arc_mm=uniform(18, 32), radius_mm=uniform(1.15, 1.35))
    return tree.arteries


def _at(line: Centerline, arc_mm: float) -> Float[np.ndarray, "3"]:
    return np.asarray(line.positions_mm[min(int(np.searchsorted(line.arc_mm, arc_mm)), len(line.arc_mm) - 1)])


def _artery(generator: np.random.Generator, line: Centerline, radius_mm: float) -> Artery:
    first, second, third, fourth = (float(v) for v in generator.uniform(0, 2 * np.pi, 4))
    return Artery(
        line,
        start_radius_mm=radius_mm,
        taper_per_mm=float(generator.uniform(0.005, 0.009)),
        wall_mm=float(generator.uniform(1.6, 2.0)),
        phases=(first, second, third, fourth),
    )


def _place_plaque(generator: np.random.Generator, arteries: list[Artery], grid: Grid, kind: PlaqueKind) -> None:
    """Tries places until one is free: away from other plaques, vessel ends and the edge of the volume."""
    lengths = np.array([artery.labelled_length_mm(_SMALLEST_PLAQUE_RADIUS_MM) for artery in arteries])
    for _ in range(60):
        index = int(generator.choice(len(arteries), p=lengths / lengths.sum()))
        artery = arteries[index]
        if lengths[index] < 14:
            continue
        arc = float(generator.uniform(7, lengths[index] - 4))
        radius = float(artery.lumen_radius_mm(np.array([arc]))[0])
        plaque = draw_plaque(generator, kind, arc_mm=arc, lumen_radius_mm=radius)
        position = _at(artery.centerline, arc)
        is_inside = np.all(np.abs(position) < grid.half_extent_mm - _EDGE_MM - plaque.length_mm / 4)
        is_free = all(
            np.linalg.norm(position - _at(other.centerline, placed.center_arc_mm))
            > (placed.length_mm + plaque.length_mm) / 2 + 2.5
            for other in arteries
            for placed in other.plaques
        )
        if is_inside and is_free and _distance_to_others(artery, arteries, position) > plaque.length_mm / 2 + 3:
            artery.plaques.append(plaque)
            return


def _distance_to_others(artery: Artery, arteries: list[Artery], position: Float[np.ndarray, "3"]) -> float:
    gaps = [
        float(np.linalg.norm(other.centerline.positions_mm - position, axis=1).min())
        for other in arteries
        if other is not artery
    ]
    return min(gaps, default=np.inf)
