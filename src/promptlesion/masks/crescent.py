"""Crescents of plaque: in the wall of a vessel, along its centreline and around it, never in the lumen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from promptlesion.data.boxes import voxel_mm3
from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS
from promptlesion.data.volume import Volume
from promptlesion.masks.clearance import Refusal
from promptlesion.masks.growth import GrownMask, grow_field
from promptlesion.masks.vessel import VesselWall, vessel_wall

_LENGTH_MM = (2.5, 6.0)
_ANGLE_DEGREES = (60.0, 180.0)
_THICKNESS_MM = (1.2, 2.2)
_REFERENCE_RADIUS_MM = 1.5
_NUM_WAVES = 5
_RAGGEDNESS = 0.3
_HIGHEST_LEVEL = 4.0
_MOST_GAPS = 0.1


@dataclass(frozen=True)
class Crescent:
    """Proportions of a plaque and its ragged edge; its size comes from the asked-for volume."""

    length_mm: float
    width_mm: float
    """Around the vessel, along the lumen's surface."""
    thickness_mm: float
    wave_vectors: Float[np.ndarray, "wave 2"]
    wave_phases: Float[np.ndarray, " wave"]

    def ratio(
        self,
        arc_mm: Float[np.ndarray, " n"],
        around_mm: Float[np.ndarray, " n"],
        depth_mm: Float[np.ndarray, " n"],
        *,
        radius_mm: float,
    ) -> Float[np.ndarray, " n"]:
        """Return below 1 inside, 1 on the surface, above 1 outside: half an ellipsoid on the lumen, its rim ragged.

        Args:
            arc_mm: along the vessel, from the middle.
            around_mm: around the vessel, from the middle.
            depth_mm: from the lumen.
            radius_mm: of the sphere of the plaque's volume, were the wall thick enough.
        """
        half_ellipsoid_mm3 = np.pi / 6 * self.length_mm * self.width_mm * self.thickness_mm
        scale = radius_mm * (4 / 3 * np.pi / half_ellipsoid_mm3) ** (1 / 3)
        along = arc_mm / (scale * self.length_mm / 2)
        around = around_mm / (scale * self.width_mm / 2)
        waves = np.cos(np.stack([along, around], axis=-1) @ self.wave_vectors.T + self.wave_phases).mean(axis=-1)
        ragged = (1 + _RAGGEDNESS * np.sqrt(2 * _NUM_WAVES) * waves).clip(0.3)
        ratio: np.ndarray = np.sqrt((along**2 + around**2) * ragged + (depth_mm / (scale * self.thickness_mm)) ** 2)
        return ratio


def draw_crescent(generator: np.random.Generator) -> Crescent:
    """Draw the proportions of a plaque, length to angle to thickness, and the waves of its rim.

    In intravascular tomography of calcified lesions (Fujino et al., EuroIntervention 2018, doi 10.4244/EIJ-D-17-00962)
    more than 5 mm along, 180 degrees around and 0.5 mm deep tells hard cases; the normal coronary wall has 0.6 mm
    (Brodoefel et al., AJR 2009, doi 10.2214/AJR.08.1381) and CT blurs what it shows. *(reading)*: how the three go
    together is not published in this form. The ranges, 2.5 to 6 mm, 60 to 180 degrees of a lumen 3 mm wide and 1.2 to
    2.2 mm, give crescents 2.1 to 2.2 times as long as deep (principal axes); the plaques of the phantom `ccta` have
    2.1, two real coronary plaques 2.5 and 2.6. Slenderer ones (4 to 12 mm, 0.8 to 2 mm) came out darker, with a lesion
    KID on the phantom of 66 and 23 instead of 6 and 8. All are scaled together to the asked-for volume; the angle is
    that of the same width on the vessel's own lumen.
    """
    length_mm, degrees, thickness_mm = (
        float(np.exp(generator.uniform(*np.log(span)))) for span in (_LENGTH_MM, _ANGLE_DEGREES, _THICKNESS_MM)
    )
    return Crescent(
        length_mm,
        float(np.deg2rad(degrees)) * _REFERENCE_RADIUS_MM,
        thickness_mm,
        wave_vectors=generator.normal(scale=3.0, size=(_NUM_WAVES, 2)),
        wave_phases=generator.uniform(0, 2 * np.pi, size=_NUM_WAVES),
    )


def grow_crescent(
    crescent: Crescent,
    labels: Volume,
    voxel: tuple[int, int, int],
    *,
    is_host: Bool[np.ndarray, "256"],
    is_lumen: Bool[np.ndarray, "256"],
    diameter_mm: float,
    max_extent_mm: float,
    image: Volume | None = None,
) -> GrownMask | Refusal:
    """Cut a crescent out of a vessel's wall, as large as asked for: where the wall is thin, longer and wider.

    Args:
        crescent: its proportions.
        labels: label map of the scan.
        voxel: of the wall, in the middle of the crescent along and around the vessel.
        is_host: by label value, the wall.
        is_lumen: by label value, what it lies against.
        diameter_mm: of the sphere of the asked-for volume.
        max_extent_mm: the vessel is followed half as far each way.
        image: the scan in HU, where the wall may be thickened outward into fat.
    """
    wall = vessel_wall(labels, voxel, is_wall=is_host, is_lumen=is_lumen, reach_mm=max_extent_mm / 2, image=image)
    if wall is None:
        return Refusal("no vessel to follow beside it", 0.0, "no lumen near, or a stub of one")
    grown = _cut(crescent, wall, labels, diameter_mm=diameter_mm)
    closed = ndimage.binary_closing(grown.mask, structure=ALL_26_NEIGHBOURS)
    gaps = closed & is_host[labels.array[wall.box]] & ~grown.mask
    if gaps.sum() > _MOST_GAPS * grown.mask.sum():
        share = gaps.sum() / grown.mask.sum()
        return Refusal("in pieces, as where vessels branch", share, f"gaps of {100 * share:.0f} % of its volume")
    return grown


def _cut(crescent: Crescent, wall: VesselWall, labels: Volume, *, diameter_mm: float) -> GrownMask:
    """Return the crescent of the asked-for volume around the middle of a piece of wall."""
    ratio = crescent.ratio(wall.arc_mm, wall.angle * wall.lumen_radius_mm, wall.depth_mm, radius_mm=diameter_mm / 2)
    field = np.full([side.stop - side.start for side in wall.box], np.inf)
    field[tuple(wall.voxels.T)] = ratio
    x, y, z = wall.voxels[int(ratio.argmin())].tolist()
    target_voxels = float(np.pi / 6 * diameter_mm**3 / voxel_mm3(labels))
    _, mask = grow_field(field, (x, y, z), target_voxels=target_voxels, highest=_HIGHEST_LEVEL)
    return GrownMask(wall.box, mask, "crescent")
