"""Centrelines of coronary arteries: smooth random walks that hug the heart and seek its fatty grooves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from promptlesion.data.curve import evenly_along, transported_normals
from promptlesion.data.phantom.heart import Heart

_STEP_MM = 1.0
_SAMPLE_MM = 0.15


@dataclass(frozen=True)
class Centerline:
    """Densely sampled positions, a frame that turns as little as possible, and the arc length."""

    positions_mm: Float[np.ndarray, "n 3"]
    tangents: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    arc_mm: Float[np.ndarray, " n"]

    @property
    def length_mm(self) -> float:
        """From the first position to the last."""
        return float(self.arc_mm[-1])


class HeartSurface:
    """Distance to the heart's muscle, thickness of the fat on it, and their gradients, at any point."""

    def __init__(self, heart: Heart) -> None:
        """Takes the control points of the heart's surfaces as samples."""
        self._origin_mm = heart.lattice.origin_mm
        self._step_mm = heart.lattice.step_mm
        body = ndimage.gaussian_filter(heart.body_distance_mm, 0.6)
        thickness = ndimage.gaussian_filter(body - heart.pericardium_distance_mm, 1.5)
        self._fields = [
            body,
            *np.gradient(body, self._step_mm),
            *np.gradient(thickness, self._step_mm),
        ]

    def at(self, position_mm: Float[np.ndarray, "3"]) -> tuple[float, Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Distance in millimetres, its unit gradient, and the gradient of the fat's thickness."""
        index = ((position_mm - self._origin_mm) / self._step_mm)[:, None]
        values = [float(ndimage.map_coordinates(field, index, order=1, mode="nearest")[0]) for field in self._fields]
        gradient = np.array(values[1:4])
        return values[0], gradient / (np.linalg.norm(gradient) + 1e-6), np.array(values[4:7])


def ostium(heart: Heart, toward: Sequence[float], height_mm: float) -> Float[np.ndarray, "3"]:
    """Where an artery leaves the aorta: the furthest point of its surface in the given direction."""
    first, second, third = np.meshgrid(*(axis.ravel() for axis in heart.lattice.axes_mm), indexing="ij")
    is_close = (np.abs(heart.aorta_distance_mm) < 1.5) & (np.abs(third - height_mm) < 2.0)
    candidates = np.stack([first[is_close], second[is_close], third[is_close]], axis=1)
    return np.asarray(candidates[np.argmax(candidates @ np.array(toward))], dtype=np.float64)


def walk(
    generator: np.random.Generator,
    surface: HeartSurface,
    start_mm: Float[np.ndarray, "3"],
    direction: Sequence[float] | Float[np.ndarray, "3"],
    *,
    length_mm: float,
    clearance_mm: float,
    half_extent_mm: Float[np.ndarray, "3"],
    others_mm: Float[np.ndarray, "m 3"],
) -> Centerline | None:
    """Walks over the heart, clear of its muscle, until the length is reached or the field of view left.

    Curves smoothly at random, drifts toward thick fat, and keeps off `others_mm`. None where less than 12 mm
    came about.
    """
    position = np.array(start_mm, dtype=np.float64)
    heading = np.array(direction, dtype=np.float64)
    heading /= np.linalg.norm(heading)
    preferred, turn, track = heading.copy(), 0.0, [position.copy()]
    for _ in range(int(length_mm / _STEP_MM)):
        distance, outward, to_fat = surface.at(position)
        turn = 0.88 * turn + generator.normal(0, 0.045)
        heading = heading + turn * np.cross(outward, heading) + 0.12 * to_fat + 0.05 * preferred
        if len(others_mm) and len(track) > 7:
            away = position - others_mm
            gap = np.linalg.norm(away, axis=1)
            nearest = int(gap.argmin())
            heading = heading + 0.5 * max(0.0, 1 - gap[nearest] / 12) * away[nearest] / (gap[nearest] + 1e-6)
        heading -= (heading @ outward) * outward
        heading /= np.linalg.norm(heading) + 1e-9
        position = position + _STEP_MM * heading
        position += np.clip(clearance_mm - distance, -0.7, 0.7) * outward
        if np.any(np.abs(position) > half_extent_mm + 3):
            break
        track.append(position.copy())
    return _centerline(np.array(track)) if len(track) > 12 else None


def _centerline(track: Float[np.ndarray, "n 3"]) -> Centerline:
    smooth = ndimage.gaussian_filter1d(track, 2.0, axis=0, mode="nearest")
    smooth[0] = track[0]
    positions, arc_mm = evenly_along(smooth, _SAMPLE_MM)
    positions = ndimage.gaussian_filter1d(positions, 5.0, axis=0, mode="nearest")
    tangents = np.gradient(positions, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-12
    return Centerline(positions, tangents, transported_normals(tangents), arc_mm)
