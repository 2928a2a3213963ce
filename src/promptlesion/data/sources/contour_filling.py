"""Closed contours of one plane as pixels: nested ones cut holes, overlapping ones join, tiny ones keep a pixel."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64
from scipy.spatial import KDTree
from skimage.draw import polygon, polygon2mask
from skimage.measure import points_in_poly

Corners = Float64[np.ndarray, "_ 2"]

_SAME_LINE_PIXELS = 0.2  # contours that run this close to each other are one, drawn twice or rounded
_STEP_PIXELS = 0.25


def filled(contours: Sequence[Corners], shape: tuple[int, int], *, is_xor: bool) -> Bool[np.ndarray, "column row"]:
    """Fill the contours of one region in one plane, given by columns and rows.

    `is_xor` is what DICOM's CLOSEDPLANAR_XOR says: a pixel within an even number of contours is outside. Else a contour
    wholly inside another cuts a hole, one inside the hole is an island, and contours that overlap in part are joined.
    One drawn twice counts once. A contour that encloses no pixel's centre keeps the pixel nearest to it, unless it is a
    hole.
    """
    contours = contours if is_xor else _without_copies(contours)
    masks = [polygon2mask(shape, corners) for corners in contours]
    parents = _parents(contours)
    kept = np.zeros(shape, dtype=bool)
    for index, corners in enumerate(contours):
        if not masks[index].any() and encloses_no_pixel(corners) and _depth(index, parents) % 2 == 0:
            kept[_nearest_pixel(corners, shape)] = True
    if is_xor:
        mask: np.ndarray = np.logical_xor.reduce(masks) | kept
        return mask
    for index, parent in enumerate(parents):
        if parent is None:
            kept |= _region(index, masks, parents)
    return kept


def encloses_no_pixel(corners: Corners) -> bool:
    """Whether a contour runs between the pixels' centres, wherever it lies."""
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    across = np.arange(low[0], high[0] + 1)
    middle_row = np.column_stack([across, np.full(len(across), np.rint((low[1] + high[1]) / 2))])
    return not points_in_poly(middle_row, corners).any() and not polygon(*(corners - low).T)[0].size


def _without_copies(contours: Sequence[Corners]) -> list[Corners]:
    kept: list[Corners] = []
    for corners in contours:
        if not any(_runs_along(corners, other) and _runs_along(other, corners) for other in kept):
            kept.append(corners)
    return kept


def _runs_along(inner: Corners, outer: Corners) -> bool:
    """Whether a contour is nowhere far from another."""
    return _is_near(inner, outer) and not _far_from(outer, inner).size


def _nearest_pixel(corners: Corners, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The pixel nearest to the middle of a contour that runs through it; none where the contour lies outside."""
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    points = middle[None] if np.ptp(corners, axis=0).max() <= 1 else corners
    pixels = np.rint(points).astype(np.int64)
    pixels = pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)]
    nearest = pixels[np.linalg.norm(pixels - middle, axis=1).argsort(kind="stable")[:1]]
    return nearest[:, 0], nearest[:, 1]


def _region(index: int, masks: Sequence[np.ndarray], parents: Sequence[int | None]) -> Bool[np.ndarray, "column row"]:
    """A contour's pixels without its holes, which may hold islands."""
    region = masks[index].copy()
    for child, parent in enumerate(parents):
        if parent == index:
            region &= ~_region(child, masks, parents)
    return region


def _depth(index: int, parents: Sequence[int | None]) -> int:
    parent = parents[index]
    return 0 if parent is None else 1 + _depth(parent, parents)


def _parents(contours: Sequence[Corners]) -> list[int | None]:
    """For every contour the smallest one that holds it inside."""
    areas = [_area(corners) for corners in contours]
    by_area = sorted(range(len(contours)), key=areas.__getitem__)
    return [
        next((one for one in by_area if areas[one] > area and _holds(contours[one], corners)), None)
        for area, corners in zip(areas, contours, strict=True)
    ]


def _holds(outer: Corners, inner: Corners) -> bool:
    """Whether a contour lies inside another, where it may touch it but not run along it all the way."""
    if not _is_near(inner, outer):
        return False
    far = _far_from(outer, inner)
    return bool(far.size and points_in_poly(far, outer).all())


def _is_near(inner: Corners, outer: Corners) -> bool:
    """Whether a contour's bounds lie within another's, or hardly beyond."""
    low, high = outer.min(axis=0) - _SAME_LINE_PIXELS, outer.max(axis=0) + _SAME_LINE_PIXELS
    return bool((inner.min(axis=0) >= low).all() and (inner.max(axis=0) <= high).all())


def _far_from(outer: Corners, inner: Corners) -> Corners:
    """The points of a contour that do not run along another."""
    line = _line(inner)
    return np.asarray(line[KDTree(_line(outer)).query(line)[0] > _SAME_LINE_PIXELS])


def _line(corners: Corners) -> Float64[np.ndarray, "_ 2"]:
    """Points along a closed contour."""
    ends = np.roll(corners, -1, axis=0)
    steps = np.maximum(np.ceil(np.linalg.norm(ends - corners, axis=1) / _STEP_PIXELS).astype(int), 1)
    share = np.concatenate([np.arange(count) / count for count in steps])[:, None]
    return np.asarray(np.repeat(corners, steps, axis=0) * (1 - share) + np.repeat(ends, steps, axis=0) * share)


def _area(corners: Corners) -> float:
    columns, rows = corners.T
    return abs(float(columns @ np.roll(rows, -1) - rows @ np.roll(columns, -1))) / 2
