"""What a scan has room for: off its edge, off its lesions, within the model's patch; and why not, with figures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from promptlesion.data.boxes import Box, box_around, in_box, tight_box, voxel_mm3
from promptlesion.data.lesion_instances import sphere_diameter_mm
from promptlesion.data.volume import Volume
from promptlesion.masks.growth import GrownMask

_MIN_VOXELS = 4
_LEAST_SHARE = 0.85


@dataclass(frozen=True)
class Refusal:
    """Why a lesion cannot be at a place."""

    reason: str
    missing: float
    """How far the place is from what was asked, to tell the one that came nearest."""
    figure: str


def in_words(refusals: Sequence[Refusal]) -> str:
    """Count the reasons, the most frequent first, each with the figure that came nearest to what was asked."""
    counted = Counter(refusal.reason for refusal in refusals)
    nearest = {refusal.reason: refusal for refusal in sorted(refusals, key=lambda refusal: -refusal.missing)}
    return ", ".join(f"{reason} ({count} times; {nearest[reason].figure})" for reason, count in counted.most_common())


@dataclass(frozen=True, eq=False)
class Room:
    """A label map, and how far new lesions keep from its edge and from lesions that are there."""

    labels: Volume
    is_lesion: Bool[np.ndarray, "256"]
    """By label value."""
    others: Sequence[GrownMask]
    edge_mm: float
    """Lesions keep as far off the scan's edge, and twice that off each other."""
    max_extent_mm: float
    """Largest extent of a lesion along an axis."""
    ignored_label: int | None = None
    """The value of voxels that nobody labelled: no lesion covers one."""

    def why_not_at(self, voxel: tuple[int, int, int], *, diameter_mm: float) -> Refusal | None:
        """Return why no lesion of a size can have its middle in a voxel, as far as that is seen at a glance.

        A lesion reaches a quarter of its diameter at least, however the host cuts it.
        """
        reach = [int(diameter_mm / 4 / mm) for mm in self.labels.spacing_mm]
        first, last = ([at + sign * r for at, r in zip(voxel, reach, strict=True)] for sign in (-1, 1))
        refusal = self._near_edge(first, last)
        if refusal is not None:
            return refusal
        near = box_around(voxel, self.labels, 2 * self.edge_mm + diameter_mm / 4)
        occupied = np.argwhere(self._occupied(near)) + [side.start for side in near]
        if not len(occupied):
            return None
        offsets_mm = (occupied - voxel) * np.array(self.labels.spacing_mm)
        gap_mm = float(np.linalg.norm(offsets_mm, axis=1).min()) - diameter_mm / 4
        return self._near_lesion(gap_mm) if gap_mm <= 2 * self.edge_mm else None

    def why_not(self, grown: GrownMask, *, diameter_mm: float, allowed_mm: tuple[float, float]) -> Refusal | None:
        """Return why a mask cannot stay where it is, or nothing.

        It must have 85 % of the asked-for diameter, and lie between the smallest and the largest of its type.
        """
        smallest_mm, largest_mm = allowed_mm
        found_mm = sphere_diameter_mm(float(grown.mask.sum()) * voxel_mm3(self.labels))
        if grown.mask.sum() < _MIN_VOXELS or found_mm < max(smallest_mm, _LEAST_SHARE * diameter_mm):
            asked = f"room for {found_mm:.1f} mm where {diameter_mm:.1f} mm were asked for"
            return Refusal("too little of the host around it", diameter_mm - found_mm, asked)
        if found_mm > largest_mm:
            figure = f"{found_mm:.2f} mm where {largest_mm:g} mm are allowed"
            return Refusal("a voxel more than its type allows", found_mm - largest_mm, figure)
        tight = tight_box(grown.mask, grown.box, self.labels, 0.0)
        refusal = self._near_edge([side.start for side in tight], [side.stop - 1 for side in tight])
        if refusal is not None:
            return refusal
        extent_mm = max((side.stop - side.start) * mm for side, mm in zip(tight, self.labels.spacing_mm, strict=True))
        if extent_mm > self.max_extent_mm:
            figure = f"{extent_mm:.1f} mm along an axis where {self.max_extent_mm:.1f} mm are"
            return Refusal("larger than the model's patch allows", extent_mm - self.max_extent_mm, figure)
        if self.ignored_label is not None:
            num_ignored = int(
                (self.labels.array[tight] == self.ignored_label)[in_box(grown.mask, grown.box, tight)].sum()
            )
            if num_ignored:
                return Refusal("where nobody has labelled", num_ignored, f"{num_ignored} voxels labelled ignore")
        near = tight_box(grown.mask, grown.box, self.labels, 2 * self.edge_mm)
        occupied = self._occupied(near)
        if occupied.any():
            distance_mm = ndimage.distance_transform_edt(~occupied, sampling=self.labels.spacing_mm)
            gap_mm = float(distance_mm[in_box(grown.mask, grown.box, near)].min())
            if gap_mm <= 2 * self.edge_mm:
                return self._near_lesion(gap_mm)
        return None

    def _occupied(self, box: Box) -> Bool[np.ndarray, "x y z"]:
        occupied: np.ndarray = self.is_lesion[self.labels.array[box]]
        for other in self.others:
            occupied |= in_box(other.mask, other.box, box)
        return occupied

    def _near_edge(self, first: Sequence[int], last: Sequence[int]) -> Refusal | None:
        """Return whether voxels from first to last come too near the edge of the scan along some axis."""
        missing_mm = []
        for low, high, mm, length in zip(first, last, self.labels.spacing_mm, self.labels.shape, strict=True):
            margin = int(np.ceil(self.edge_mm / mm))
            missing_mm.append((margin - min(low, length - 1 - high)) * mm)
        if max(missing_mm) <= 0:
            return None
        gap_mm = max(0.0, self.edge_mm - max(missing_mm))
        figure = f"{gap_mm:.1f} mm off it where {self.edge_mm:.1f} mm are needed"
        return Refusal("too near the edge of the scan", max(missing_mm), figure)

    def _near_lesion(self, gap_mm: float) -> Refusal:
        figure = f"{max(0.0, gap_mm):.1f} mm off it where {2 * self.edge_mm:.1f} mm are needed"
        return Refusal("too near another lesion", -gap_mm, figure)
