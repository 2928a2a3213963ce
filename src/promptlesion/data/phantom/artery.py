"""Coronary arteries as analytic tubes: lumen, wall and plaque by distance to the centreline and angle."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial import cKDTree

from promptlesion.data.phantom.centerline import Centerline
from promptlesion.data.phantom.geometry import Grid
from promptlesion.data.phantom.plaque import KINDS, Plaque, PlaqueKind

_BAND_MM = 7.5
FAR_MM = 99.0
_SMALLEST_LABELLED_RADIUS_MM = 0.95


@dataclass(frozen=True)
class Artery:
    """A tapering tube with its plaques."""

    centerline: Centerline
    start_radius_mm: float
    taper_per_mm: float
    wall_mm: float
    phases: tuple[float, float, float, float]
    plaques: list[Plaque] = field(default_factory=list)

    def lumen_radius_mm(self, arc_mm: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Radius of the lumen along the vessel, without plaque."""
        wave = 0.05 * np.sin(0.23 * arc_mm + self.phases[0]) + 0.03 * np.sin(0.71 * arc_mm + self.phases[1])
        radius_mm = self.start_radius_mm * np.exp(-self.taper_per_mm * arc_mm)
        return np.asarray(radius_mm * (1 + wave))

    def wall_thickness_mm(
        self, arc_mm: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Thickness of the wall without plaque: uneven, and gently less where the vessel is narrower."""
        calibre = np.sqrt(self.lumen_radius_mm(arc_mm) / self.start_radius_mm)
        wave = 0.11 * np.sin(angle + self.phases[2] + 0.15 * arc_mm)
        wave = wave + 0.08 * np.sin(0.45 * arc_mm + self.phases[3] - 2 * angle)
        return np.asarray(np.clip(self.wall_mm * (0.35 + 0.65 * calibre) * (1 + wave), 1.3, 2.2))

    def labelled_length_mm(self, smallest_radius_mm: float) -> float:
        """Arc length up to which the lumen is at least this wide."""
        is_narrow = self.lumen_radius_mm(self.centerline.arc_mm) < smallest_radius_mm
        last = int(is_narrow.argmax()) if is_narrow.any() else len(is_narrow) - 1
        return float(self.centerline.arc_mm[last])


@dataclass
class VesselBand:
    """What a set of arteries holds at the voxels near them; distances in millimetres, negative inside."""

    voxels: tuple[np.ndarray, np.ndarray, np.ndarray]
    lumen_mm: Float32[np.ndarray, " n"]
    wall_mm: Float32[np.ndarray, " n"]
    plaque_mm: dict[PlaqueKind, Float32[np.ndarray, " n"]]
    plaque_hu: dict[PlaqueKind, Float32[np.ndarray, " n"]]
    thin: Float32[np.ndarray, " n"]
    is_labelled: np.ndarray


def rasterize(arteries: list[Artery], grid: Grid) -> VesselBand:
    """Distances to lumen, wall and plaques of all arteries, at the voxels of a narrow band around them."""
    is_near = _near_mask([artery.centerline for artery in arteries], grid)
    voxels = np.nonzero(is_near)
    points = np.stack([axis.ravel()[index] for axis, index in zip(grid.axes_mm, voxels, strict=True)], axis=1)
    count = len(points)
    lumen_mm, wall_mm = np.full((2, count), FAR_MM, np.float32)
    band = VesselBand(
        (voxels[0], voxels[1], voxels[2]),
        lumen_mm,
        wall_mm,
        plaque_mm={kind: np.full(count, FAR_MM, np.float32) for kind in KINDS},
        plaque_hu={kind: np.zeros(count, np.float32) for kind in KINDS},
        thin=np.zeros(count, np.float32),
        is_labelled=np.zeros(count, bool),
    )
    for artery in arteries:
        _add(band, artery, points)
    return band


def _near_mask(centerlines: list[Centerline], grid: Grid) -> np.ndarray:
    spacing = np.array(grid.spacing_mm)
    reach = np.ceil(_BAND_MM / spacing).astype(int)
    shape = np.array(grid.shape)
    is_near = np.zeros(shape + 2 * reach, bool)
    ball = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    ball = ball[np.linalg.norm(ball * spacing, axis=1) <= _BAND_MM]
    for centerline in centerlines:
        seeds = np.rint(centerline.positions_mm[::8] / spacing + (shape - 1) / 2).astype(int)
        inside = np.all((seeds >= 0) & (seeds < shape), axis=1)
        indices = (seeds[inside, None, :] + reach + ball[None]).reshape(-1, 3)
        is_near[indices[:, 0], indices[:, 1], indices[:, 2]] = True
    first, second, third = (slice(int(r), int(r + s)) for r, s in zip(reach, shape, strict=True))
    return is_near[first, second, third]


def _add(band: VesselBand, artery: Artery, points: Float32[np.ndarray, "n 3"]) -> None:
    line = artery.centerline
    distance, nearest = cKDTree(line.positions_mm).query(points, distance_upper_bound=_BAND_MM)
    near = np.flatnonzero(nearest < len(line.arc_mm))
    nearest = nearest[near]
    offset = points[near] - line.positions_mm[nearest]
    tangent, normal = line.tangents[nearest], line.normals[nearest]
    along = np.einsum("nk,nk->n", offset, tangent)
    # Where the nearest point is an end, what lies beyond it is no longer vessel: the ends are cut flat.
    beyond = np.where(nearest == 0, -along, np.where(nearest == len(line.arc_mm) - 1, along, -FAR_MM))
    angle = np.arctan2(np.einsum("nk,nk->n", offset, np.cross(tangent, normal)), np.einsum("nk,nk->n", offset, normal))
    radius, arc = distance[near], line.arc_mm[nearest]
    lumen = artery.lumen_radius_mm(arc)
    outer = lumen + artery.wall_thickness_mm(arc, angle)
    profiles = [plaque.profile(arc, angle) for plaque in artery.plaques]
    for plaque, profile in zip(artery.plaques, profiles, strict=True):
        lumen = lumen - plaque.stenosis_mm * profile
    for plaque, profile in zip(artery.plaques, profiles, strict=True):
        inner = lumen + plaque.gap_to_lumen_mm
        thickness = plaque.thickness_mm * profile
        outer = np.maximum(outer, inner + thickness + 0.45 * np.sqrt(profile))
        depth = np.abs(radius - inner - thickness / 2) - thickness / 2
        depth = np.where(profile > 0, np.maximum(depth, beyond), FAR_MM)
        core = np.clip(1 - np.maximum(0, depth / (plaque.thickness_mm / 2) + 1) * 1.2, 0, 1)
        hu, closest = plaque.mean_hu + plaque.core_hu * core * profile, band.plaque_mm[plaque.kind]
        is_closer = depth < closest[near]
        closest[near[is_closer]] = depth[is_closer]
        band.plaque_hu[plaque.kind][near[is_closer]] = hu[is_closer]
    distances = np.maximum(radius - lumen, beyond), np.maximum(radius - outer, beyond)
    is_closest = distances[1] < band.wall_mm[near]
    band.thin[near[is_closest]] = np.clip((1.0 - lumen[is_closest]) / 0.5, 0, 1)
    band.is_labelled[near] |= (arc <= artery.labelled_length_mm(_SMALLEST_LABELLED_RADIUS_MM)) & (distances[1] < 0)
    band.lumen_mm[near] = np.minimum(band.lumen_mm[near], distances[0])
    band.wall_mm[near] = np.minimum(band.wall_mm[near], distances[1])
