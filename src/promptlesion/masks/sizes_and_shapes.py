"""How the lesions to paint are drawn: their sizes as in training, their shapes as their type says."""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from promptlesion.data.boxes import offsets_mm, voxel_mm3
from promptlesion.data.dataset import Dataset
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.spec import LesionType
from promptlesion.masks.clearance import Refusal
from promptlesion.masks.config import MaskConfig
from promptlesion.masks.crescent import draw_crescent, grow_crescent
from promptlesion.masks.growth import GrownMask, Site, grow_shape
from promptlesion.masks.real_shape import RealShape, draw_real_shape
from promptlesion.masks.shape import draw_ellipsoid
from promptlesion.masks.shape_bank import ShapeBank, ShapeSource, cut_bank, read_bank

logger = logging.getLogger(__name__)
Mask = TypeVar("Mask", GrownMask, GrownMask | Refusal)

_DIAMETER_JITTER = 0.1
_WALL_ORIENTATIONS = 32
"""In which a plaque is tried at a place of another vessel's wall, which is thinner than it is long."""
_LEAST_KEPT = 0.85
"""Share of a pasted lesion's volume that there is room for, where its host is no wall."""
_PASTED_LEVEL = 1.1
"""A lesion pasted whole is clipped and not grown; a tenth of its radius makes up for whole voxels."""


@dataclass(frozen=True)
class LesionDrawing:
    """Where sizes and shapes come from. Everything drawn is a function of the generator alone."""

    statistics: LesionStatistics
    """Sizes of the training lesions; of a type that is missing any size in its range is as likely as another."""
    deformation: float
    """Root mean square of an ellipsoid's surface deviation, as a share of its radius."""
    edge_mm: float
    """Width of the blended edge; lesions keep twice that apart, and off the scan's edge."""
    max_extent_mm: float
    """The largest extent of a mask along an axis."""
    size_range_lesions: int = 0
    """How many training lesions the type's range of sizes counts as."""
    banks: Mapping[str, ShapeBank] = field(default_factory=dict)
    """Real shapes by type name; the masks of these types are drawn from them, whatever `lesions.toml` says."""

    @property
    def fingerprint(self) -> str:
        """Identifies all that masks are drawn from."""
        banks = sorted((name, bank.fingerprint) for name, bank in self.banks.items())
        content = f"{self.statistics.model_dump_json()} {self.deformation} {self.size_range_lesions} {banks}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def build_drawing(
    dataset: Dataset,
    statistics: LesionStatistics,
    config: MaskConfig,
    *,
    edge_mm: float,
    max_extent_mm: float,
    shapes: Mapping[str, ShapeSource] | None = None,
    own_lesions: Mapping[str, ShapeBank] | None = None,
) -> LesionDrawing:
    """Gather what masks are drawn from, and say once which training sizes the model cannot paint.

    Real shapes are cut from the dataset's training cases, or come by type name from `shapes`, folders or archives of
    masks. `own_lesions` are whole lesions by type name, of a method that pastes them; the masks of these types are
    theirs. Statistics, edge and extent are those of the method.

    Raises:
        ValueError: masks for an unknown type, for one whose lesions are pasted whole, or none where there should be
            some.
    """
    sources, own = dict(shapes or {}), dict(own_lesions or {})
    names = [lesion_type.name for lesion_type in dataset.spec.lesions]
    unknown = [name for name in sources if name not in names]
    if unknown:
        raise ValueError(
            f"--shapes {unknown[0]}={sources[unknown[0]].path}: expected one of the lesion types {', '.join(names)}; "
            f"found {unknown[0]!r}"
        )
    both = sorted(set(sources) & set(own))
    if both:
        raise ValueError(
            f"--shapes {both[0]}={sources[both[0]].path}: expected none for a method that pastes real lesions in their "
            "own shape; found one"
        )
    banks: dict[str, ShapeBank] = {}
    for lesion_type in dataset.spec.lesions:
        if lesion_type.name in own:
            banks[lesion_type.name] = own[lesion_type.name]
        elif lesion_type.name in sources:
            banks[lesion_type.name] = read_bank(sources[lesion_type.name])
        elif lesion_type.shape == "real":
            banks[lesion_type.name] = cut_bank(dataset, lesion_type)
        _warn_of_large(statistics, lesion_type, max_extent_mm)
    return LesionDrawing(statistics, config.deformation, edge_mm, max_extent_mm, config.size_range_lesions, banks)


def draw_diameter_mm(drawing: LesionDrawing, lesion_type: LesionType, generator: np.random.Generator) -> float:
    """Draw a size: a training lesion's, a tenth more or less, within the type's range and what the model can paint.

    Few training lesions do not show what sizes there are. So of n + m draws, where n lesions fit and the range counts
    as m, m are log-uniform over that range; without a lesion all are.
    """
    low, high = _drawable_mm(lesion_type, drawing.max_extent_mm)
    known = drawing.statistics.types.get(lesion_type.name)
    fitting = [diameter for diameter in known.diameters_mm if low <= diameter <= high] if known else []
    share_of_range = drawing.size_range_lesions / max(1, drawing.size_range_lesions + len(fitting))
    if not fitting or (share_of_range and generator.random() < share_of_range):
        return float(np.exp(generator.uniform(np.log(low), np.log(high))))
    diameter_mm = fitting[int(generator.integers(len(fitting)))]
    # beyond the range the jitter is turned back: cut off, it would pile up lesions of exactly the smallest size
    jitter = float(generator.normal(0, _DIAMETER_JITTER))
    turned = (jitter, -jitter, 0.0)
    return next(size for size in (diameter_mm * float(np.exp(each)) for each in turned) if low <= size <= high)


def draw_mask(
    drawing: LesionDrawing, lesion_type: LesionType, site: Site, generator: np.random.Generator
) -> GrownMask | Refusal:
    """Draw a mask of a type around a voxel of its host, or say why there is none.

    The site's image shows the fat beside the host. A mask that would have more of its volume beyond the host than its
    type may is clipped to the host.

    Raises:
        ValueError: the type's masks are real and the drawing holds none; `build_drawing` gathers them.
    """
    bank, share = drawing.banks.get(lesion_type.name), lesion_type.exophytic_share
    if bank is not None and bank.has_voxels:
        return _draw_whole(drawing, bank, lesion_type, site, generator)
    if bank is not None:
        shape, origin = _real_shape(drawing, bank, site, generator)
        return _within_share(partial(grow_shape, shape, origin=origin), site, share)
    if lesion_type.shape == "crescent":
        return _within_share(partial(grow_crescent, draw_crescent(generator)), site, share)
    if lesion_type.shape == "real":
        raise ValueError(f"{lesion_type.name}: expected a bank of real shapes in the drawing; found none")
    ellipsoid = draw_ellipsoid(generator, deformation=drawing.deformation)
    return _within_share(partial(grow_shape, ellipsoid, origin="ellipsoid"), site, share)


def _draw_whole(
    drawing: LesionDrawing, bank: ShapeBank, lesion_type: LesionType, site: Site, generator: np.random.Generator
) -> GrownMask | Refusal:
    """Draw a real lesion with its voxels, deformed with them, and clip it to where it may be.

    A plaque is turned until most of it is in the wall; elsewhere there must be room for nearly all of it.
    """
    is_crescent = lesion_type.shape == "crescent"
    drawn = []
    for _ in range(_WALL_ORIENTATIONS if is_crescent else 1):
        shape, origin = _real_shape(drawing, bank, site, generator)
        grow = partial(grow_shape, shape, origin=f"pasted {origin}", highest=_PASTED_LEVEL)
        drawn.append((_within_share(grow, site, lesion_type.exophytic_share), shape))
    grown, shape = max(drawn, key=lambda pair: int(pair[0].mask.sum()))
    kept = float(grown.mask.sum()) * voxel_mm3(site.labels) / (np.pi / 6 * site.diameter_mm**3)
    if not is_crescent and kept < _LEAST_KEPT:
        figure = f"{100 * kept:.0f} % of a lesion where {100 * _LEAST_KEPT:.0f} % are needed"
        return Refusal("too little room for a lesion pasted whole", _LEAST_KEPT - kept, figure)
    hu = np.zeros(grown.mask.shape, dtype=np.float32)
    offsets = offsets_mm(grown.box, site.voxel, site.labels.affine)[grown.mask]
    hu[grown.mask] = shape.hu_at(offsets, radius_mm=site.diameter_mm / 2)
    return replace(grown, hu=hu)


def _real_shape(
    drawing: LesionDrawing, bank: ShapeBank, site: Site, generator: np.random.Generator
) -> tuple[RealShape, str]:
    return draw_real_shape(bank, diameter_mm=site.diameter_mm, deformation=drawing.deformation, generator=generator)


def _within_share(grow: Callable[[Site], Mask], site: Site, exophytic_share: float) -> Mask:
    """Grow a mask that bulges out of its host no farther than its type may, and where it would, one that does not."""
    if exophytic_share:
        bulging = grow(site)
        if isinstance(bulging, GrownMask):
            inside = float(site.is_host[site.labels.array[bulging.box]][bulging.mask].mean())
            if 1 - inside <= exophytic_share:
                return bulging
    return grow(replace(site, image=None))


def _drawable_mm(lesion_type: LesionType, max_extent_mm: float) -> tuple[float, float]:
    """Return the type's range as far as the model can paint it; the smallest size alone where it can paint none."""
    low, high = lesion_type.diameter_mm
    # a mask has whole voxels, so one of the largest diameter is easily a voxel more
    return low, max(low, min(high - 0.03 * (high - low), max_extent_mm))


def _warn_of_large(statistics: LesionStatistics, lesion_type: LesionType, max_extent_mm: float) -> None:
    known = statistics.types.get(lesion_type.name)
    if known is None or not known.diameters_mm:
        return
    num_large = sum(diameter_mm > max_extent_mm for diameter_mm in known.diameters_mm)
    if num_large:
        logger.warning(
            "%s: %.0f %% of the training lesions are larger than the %.0f mm that the model's patch takes; sizes are "
            "drawn among the others",
            lesion_type.name,
            100 * num_large / len(known.diameters_mm),
            max_extent_mm,
        )
