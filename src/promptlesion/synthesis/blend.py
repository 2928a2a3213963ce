"""The painted lesion goes into the full scan under a soft edge, in HU; beyond the edge not a bit changes."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from scipy import ndimage


def edge_weight(
    mask: Bool[np.ndarray, "x y z"], *, spacing_mm: tuple[float, float, float], edge_mm: float
) -> Float[np.ndarray, "x y z"]:
    """Return 1 inside the mask, falling as the fourth power of a cosine to 0 at `edge_mm` from it.

    Half is reached at 0.36 of the edge: an autoencoder blurs, and a wider weight lets calcium spill over its mask.
    """
    return weight_at(ndimage.distance_transform_edt(~mask, sampling=spacing_mm), edge_mm=edge_mm)


def weight_at(distance_mm: Float[np.ndarray, "*shape"], *, edge_mm: float) -> Float[np.ndarray, "*shape"]:
    """Return the weight of `edge_weight` at distances from the mask."""
    weight: np.ndarray = np.cos(np.pi / 2 * np.minimum(distance_mm / edge_mm, 1.0)) ** 4
    weight[distance_mm >= edge_mm] = 0.0
    return weight


def blend(
    scan: Shaped[np.ndarray, "x y z"],
    painted: Float32[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: tuple[float, float, float],
    edge_mm: float,
) -> Shaped[np.ndarray, "x y z"]:
    """Return the box of a scan with the painted lesion in it, in HU and the scan's own number type.

    Beyond `edge_mm` from the lesion's mask nothing changes.
    """
    weight = edge_weight(mask, spacing_mm=spacing_mm, edge_mm=edge_mm)
    is_changed = weight > 0
    before = scan[is_changed].astype(np.float64)
    values = before + weight[is_changed] * (painted[is_changed] - before)
    if scan.dtype.kind in "iu":
        limits = np.iinfo(scan.dtype)
        values = np.rint(values).clip(limits.min, limits.max)
    blended: np.ndarray = scan.copy()
    blended[is_changed] = values.astype(scan.dtype)
    return blended
