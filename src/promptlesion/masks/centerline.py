"""The centreline of a piece of vessel in a label map.

It is the cheapest way through the lumen where the middle is cheap (a step costs the inverse cube of the distance to the
wall), from a voxel in the middle of it both ways: on one side to the widest of the far ends, and back through what is
left when the slice right ahead is closed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.graph import MCP_Geometric

from promptlesion.data.curve import evenly_along, transported_normals
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS
from promptlesion.data.volume import Volume

_COST_POWER = 3
_CLIMB = 0.4
_FAR_SHARE = 0.85
_SHORTEST_RADII = 0.5
_SHORTEST_VOXELS = 3
_SLICE_RADII = 2.5
_SMOOTHING_RADII = 0.75


@dataclass(frozen=True, eq=False)
class Centerline:
    """Evenly spaced points along the middle of a lumen, with a frame that turns as little as possible."""

    points_mm: Float[np.ndarray, "point 3"]
    """In the directions of the world, from the first voxel of the box."""
    tangents: Float[np.ndarray, "point 3"]
    normals: Float[np.ndarray, "point 3"]
    arc_mm: Float[np.ndarray, " point"]
    radius_mm: Float[np.ndarray, " point"]
    """Distance to the wall."""


def climb_to_middle(
    inner_mm: Float[np.ndarray, "x y z"], voxel: tuple[int, int, int], spacing_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Go from a voxel of the lumen to its middle: uphill as long as it is steep; along the vessel it is not."""
    steps = np.argwhere(ALL_26_NEIGHBOURS) - 1
    steps = steps[np.any(steps != 0, axis=1)]
    lengths_mm = np.linalg.norm(steps * np.array(spacing_mm), axis=1)
    here = np.array(voxel)
    while True:
        there = here + steps
        inside = np.all((there >= 0) & (there < inner_mm.shape), axis=1)
        slope = np.full(len(steps), -np.inf)
        slope[inside] = (inner_mm[tuple(there[inside].T)] - inner_mm[tuple(here)]) / lengths_mm[inside]
        best = int(slope.argmax())
        if slope[best] < _CLIMB:
            x, y, z = here.tolist()
            return x, y, z
        here = there[best]


def follow_lumen(
    own: Bool[np.ndarray, "x y z"],
    inner_mm: Float[np.ndarray, "x y z"],
    middle: tuple[int, int, int],
    labels: Volume,
    *,
    reach_mm: float,
) -> Centerline | None:
    """Return the centreline through a voxel in the middle of a lumen, or nothing where it leads nowhere."""
    radius_mm = float(inner_mm[middle])
    costs = np.where(own, (radius_mm / np.maximum(inner_mm, 1e-3)) ** _COST_POWER, -1.0)
    ways = MCP_Geometric(costs, sampling=labels.spacing_mm)
    ways.find_costs([middle])
    lengths_mm, _ = MCP_Geometric(np.where(own, 1.0, -1.0), sampling=labels.spacing_mm).find_costs([middle])
    far_mm = max(reach_mm, radius_mm) + radius_mm
    matrix = labels.affine[:3, :3].T
    path = np.array(ways.traceback(_far_end(own, inner_mm, lengths_mm, far_mm)))
    offset = (path - path[0]) @ matrix
    distance = np.linalg.norm(offset, axis=1)
    if distance.max() < _SHORTEST_RADII * radius_mm:
        return None
    heading = offset[int(np.argmax(distance >= min(radius_mm, distance.max())))]
    heading = heading / np.linalg.norm(heading)
    behind = _behind(own, middle, heading, radius_mm, labels)
    back = np.array(ways.traceback(_far_end(behind, inner_mm, lengths_mm, far_mm)))
    path = np.concatenate([back[:0:-1], path])
    length_mm = np.linalg.norm(np.diff(path @ matrix, axis=0), axis=1).sum()
    if length_mm < _SHORTEST_VOXELS * max(labels.spacing_mm):
        return None
    return _smoothed(path @ matrix, inner_mm[tuple(path.T)], radius_mm, min(labels.spacing_mm))


def _far_end(
    part: Bool[np.ndarray, "x y z"],
    inner_mm: Float[np.ndarray, "x y z"],
    lengths_mm: Float[np.ndarray, "x y z"],
    far_mm: float,
) -> tuple[int, int, int]:
    """Return the voxel of the widest vessel among those far from the middle, so as not to turn off into a branch."""
    reached = part & np.isfinite(lengths_mm)
    end_mm = min(float(lengths_mm[reached].max()), far_mm)
    is_far = reached & (lengths_mm >= _FAR_SHARE * end_mm) & (lengths_mm <= end_mm)
    x, y, z = np.unravel_index(int(np.where(is_far, inner_mm, 0).argmax()), part.shape)
    return int(x), int(y), int(z)


def _behind(
    own: Bool[np.ndarray, "x y z"],
    middle: tuple[int, int, int],
    heading: Float[np.ndarray, "3"],
    radius_mm: float,
    labels: Volume,
) -> Bool[np.ndarray, "x y z"]:
    """Return the lumen that is reached from the middle without going through the slice right ahead of it."""
    index = np.argwhere(own)
    offset = (index - middle) @ labels.affine[:3, :3].T
    ahead_mm = offset @ heading
    thickness_mm = 1.8 * max(labels.spacing_mm)  # a voxel's diagonal, so that there is no way past it at a corner
    is_slice = (
        (ahead_mm > 0) & (ahead_mm <= thickness_mm) & (np.linalg.norm(offset, axis=1) <= _SLICE_RADII * radius_mm)
    )
    open_part = own.copy()
    open_part[tuple(index[is_slice].T)] = False
    pieces, _ = ndimage.label(open_part, structure=ALL_26_NEIGHBOURS)
    return np.asarray(pieces == pieces[middle])


def _smoothed(
    track_mm: Float[np.ndarray, "n 3"], track_radius_mm: Float[np.ndarray, " n"], radius_mm: float, voxel_mm: float
) -> Centerline:
    """Return a path of voxels as a smooth line; its ends stay where they are."""
    step_mm = voxel_mm / 2
    track, _ = evenly_along(np.column_stack([track_mm, track_radius_mm]), step_mm)
    sigma = max(1.5 * voxel_mm, _SMOOTHING_RADII * radius_mm) / step_mm
    pad = min(int(4 * sigma), len(track) - 1)
    padded = np.pad(track[:, :3], ((pad, pad), (0, 0)), mode="reflect", reflect_type="odd")
    smooth = ndimage.gaussian_filter1d(padded, sigma, axis=0)[pad : len(padded) - pad]
    radii = ndimage.gaussian_filter1d(track[:, 3], sigma, mode="nearest")
    track, arc_mm = evenly_along(np.column_stack([smooth, radii]), step_mm)
    tangents = np.gradient(track[:, :3], axis=0)
    tangents /= np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-9)
    return Centerline(track[:, :3], tangents, transported_normals(tangents), arc_mm, track[:, 3])
