"""Crescents of plaque: in the wall of a vessel, along its centreline and around it, never in the lumen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from promptlesion.data.lesion_instances import ALL_26_NEIGHBOURS
from promptlesion.masks.clearance import Refusal
from promptlesion.masks.growth import GrownMask, Site, grow_field
from promptlesion.masks.vessel import vessel_wall

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
        return np.asarray(np.sqrt((along**2 + around**2) * ragged + (depth_mm / (scale * self.thickness_mm)) ** 2))


def draw_crescent(generator: np.random.Generator) -> Crescent:
    """Draw the proportions of a plaque, length to angle to thickness, and the waves of its rim.

    In intravascular tomography of calcified lesions (Fujino et al., EuroIntervention 2018, doi 10.4244/EIJ-D-17-00962)
    more than 5 mm along, 180 degrees around and 0.5 mm deep tells hard cases; the normal coronary wall has 0.6 mm
    (Brodoefel et al., AJR 2009, doi 10.2214/AJR.08.1381) and CT blurs what it shows. *(reading)*: how the three go
    together is not published in this form. All are scaled together to the asked-for volume; the angle is that of the
    same width on the vessel's own lumen.
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


def grow_crescent(crescent: Crescent, site: Site) -> GrownMask | Refusal:
    """Cut a crescent out of a vessel's wall, as large as asked for: where the wall is thin, longer and wider.

    The site's voxel is in the middle of the crescent along and around the vessel.
    """
    wall = vessel_wall(site)
    if wall is None:
        return Refusal("no vessel to follow beside it", 0.0, "no lumen near, or a stub of one")
    radius_mm = site.diameter_mm / 2
    ratio = crescent.ratio(wall.arc_mm, wall.angle * wall.lumen_radius_mm, wall.depth_mm, radius_mm=radius_mm)
    field = np.full([side.stop - side.start for side in wall.box], np.inf)
    field[tuple(wall.voxels.T)] = ratio
    x, y, z = wall.voxels[int(ratio.argmin())].tolist()
    _, mask = grow_field(field, (x, y, z), target_voxels=site.target_voxels, highest=_HIGHEST_LEVEL)
    closed = ndimage.binary_closing(mask, structure=ALL_26_NEIGHBOURS)
    gaps = closed & site.is_host[site.labels.array[wall.box]] & ~mask
    if gaps.sum() > _MOST_GAPS * mask.sum():
        share = gaps.sum() / mask.sum()
        return Refusal("in pieces, as where vessels branch", share, f"gaps of {100 * share:.0f} % of its volume")
    return GrownMask(wall.box, mask, "crescent")
