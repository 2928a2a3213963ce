"""The wall of the vessel around a voxel: where every voxel of it lies along the vessel, around it, and off the lumen.

A label map says no more than lumen and wall. Nothing is looked at but a box around the voxel.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.spatial import cKDTree

from promptlesion.data.boxes import Box, box_around
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS
from promptlesion.data.volume import Volume
from promptlesion.masks.centerline import Centerline, climb_to_middle, follow_lumen
from promptlesion.masks.growth import Site, room_in

_NEAR_MM = 10.0
_ROUNDS = 4
_OWN_RADII = 1.5


@dataclass(frozen=True, eq=False)
class VesselWall:
    """The wall of one vessel in a box of the scan, voxel by voxel."""

    box: Box
    voxels: Int[np.ndarray, "n 3"]
    """Of the wall, counted within the box; those of side branches and of other vessels are left out."""
    arc_mm: Float[np.ndarray, " n"]
    """Along the centreline, from the asked-for voxel."""
    angle: Float[np.ndarray, " n"]
    """Around it, in radians from the asked-for voxel, within half a turn."""
    depth_mm: Float[np.ndarray, " n"]
    """From the lumen's surface."""
    lumen_radius_mm: float
    """At the asked-for voxel."""


def vessel_wall(site: Site) -> VesselWall | None:
    """Follow the vessel whose wall, the host, holds a site's voxel; return nothing where no vessel is beside it.

    With an image the fat around the vessel counts as wall.
    """
    labels, voxel, reach_mm = site.labels, site.voxel, site.max_extent_mm / 2
    margin_mm = _NEAR_MM
    for _ in range(_ROUNDS):
        box = box_around(voxel, labels, reach_mm + margin_mm)
        x, y, z = (at - side.start for at, side in zip(voxel, box, strict=True))
        lumen = site.is_lumen[labels.array[box]]
        if not lumen.any():
            return None
        depth_mm, nearest = ndimage.distance_transform_edt(~lumen, sampling=labels.spacing_mm, return_indices=True)
        beside = (int(nearest[0, x, y, z]), int(nearest[1, x, y, z]), int(nearest[2, x, y, z]))
        if depth_mm[x, y, z] > _NEAR_MM:
            return None
        pieces, _ = ndimage.label(lumen, structure=ALL_26_NEIGHBOURS)
        own = pieces == pieces[beside]
        inner_mm = ndimage.distance_transform_edt(own, sampling=labels.spacing_mm)
        middle = climb_to_middle(inner_mm, beside, labels.spacing_mm)
        if 2 * inner_mm[middle] + 1.0 <= margin_mm:
            break
        margin_mm = 2.5 * float(inner_mm[middle]) + 1.0
    line = follow_lumen(own, inner_mm, middle, labels, reach_mm=reach_mm)
    if line is None:
        return None
    wall = np.argwhere(room_in(box, site))
    towards = nearest[:, wall[:, 0], wall[:, 1], wall[:, 2]].T
    arc_mm, angle, is_own = _along_and_around(line, wall, towards, own, labels)
    at_voxel = int(np.flatnonzero((wall == (x, y, z)).all(axis=1))[0])
    if not is_own[at_voxel]:
        return None
    half_voxel_mm = 0.5 * float(np.prod(labels.spacing_mm)) ** (1 / 3)
    turned = np.angle(np.exp(1j * (angle - angle[at_voxel])))
    return VesselWall(
        box,
        wall[is_own],
        (arc_mm - arc_mm[at_voxel])[is_own],
        turned[is_own],
        (depth_mm[tuple(wall.T)][is_own] - half_voxel_mm).clip(0),
        float(np.interp(arc_mm[at_voxel], line.arc_mm, line.radius_mm)),
    )


def _along_and_around(
    line: Centerline,
    wall: Int[np.ndarray, "n 3"],
    towards: Int[np.ndarray, "n 3"],
    own: Bool[np.ndarray, "x y z"],
    labels: Volume,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return arc length and angle of voxels of the wall, and whether it is this vessel's wall.

    It is where the nearest voxel of a lumen (`towards`) is one of this vessel's, not of a side branch: no farther from
    the centreline than the lumen is wide there.
    """
    matrix = labels.affine[:3, :3].T
    tree = cKDTree(line.points_mm)
    _, nearest = tree.query(wall @ matrix)
    offset = wall @ matrix - line.points_mm[nearest]
    along = np.einsum("nk,nk->n", offset, line.tangents[nearest])
    binormals = np.cross(line.tangents, line.normals)[nearest]
    angle = np.arctan2(np.einsum("nk,nk->n", offset, binormals), np.einsum("nk,nk->n", offset, line.normals[nearest]))
    lumen_mm, lumen_nearest = tree.query(towards @ matrix)
    allowed_mm = _OWN_RADII * line.radius_mm[lumen_nearest] + max(labels.spacing_mm)
    is_beyond = ((nearest == 0) | (nearest == len(line.arc_mm) - 1)) & (np.abs(along) > max(labels.spacing_mm))
    is_own = own[tuple(towards.T)] & (lumen_mm <= allowed_mm) & ~is_beyond
    return line.arc_mm[nearest] + along, angle, is_own
