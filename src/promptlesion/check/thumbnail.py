"""Small pictures of a case: three slices through one voxel, the labels' outlines drawn on them."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.image
import numpy as np
from jaxtyping import Bool, Num, Shaped, UInt8
from scipy import ndimage

from promptlesion.evaluation.palette import Color

_LONGEST_SIDE = 240
_MARKED_BELOW = 16
_MARK = 13
_JPEG_QUALITY = 88
_PLANES = (("axial", 2, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 0, "APSI"))
"""Name, the axis looked along, and what lies left, right, above and below, as radiologists look at it."""


@dataclass(frozen=True)
class Thumbnail:
    """One slice as a picture."""

    plane: str
    sides: str
    """Letters for left, right, above and below."""
    width: int
    height: int
    jpeg: bytes


def thumbnails(
    image: Num[np.ndarray, "x y z"],
    labels: UInt8[np.ndarray, "x y z"] | None,
    *,
    spacing_mm: tuple[float, float, float],
    center_voxel: tuple[int, int, int],
    window_hu: tuple[float, float],
    colors: Mapping[int, Color],
    marked_label: int | None,
) -> tuple[Thumbnail, ...]:
    """Draw axial, coronal and sagittal slice through a voxel in their right proportions, no longer than 240 pixels.

    Later entries of `colors` are drawn over earlier ones, so give the lesions last. A box is drawn around the voxel
    where it belongs to `marked_label` and that is too small to be seen.
    """
    longest_mm = max(length * side for length, side in zip(image.shape, spacing_mm, strict=True))
    drawn = []
    for name, axis, sides in _PLANES:
        shown_axes = [other for other in range(3) if other != axis]
        sizes_mm = [image.shape[other] * spacing_mm[other] for other in shown_axes]
        width, height = (max(1, round(size * _LONGEST_SIDE / longest_mm)) for size in sizes_mm)
        plane = _upright(np.take(image, center_voxel[axis], axis=axis)).astype(np.float32)
        gray = _resized(np.nan_to_num(plane), (height, width), order=1)
        pixels = np.repeat(np.clip((gray - window_hu[0]) / (window_hu[1] - window_hu[0]), 0, 1)[..., None], 3, axis=2)
        if labels is not None:
            found = _resized(_upright(np.take(labels, center_voxel[axis], axis=axis)), (height, width), order=0)
            for value, color in colors.items():
                pixels[_outline(found == value)] = color
            if marked_label is not None:
                at = [center_voxel[other] + 0.5 for other in reversed(shown_axes)]
                sizes = [image.shape[other] for other in reversed(shown_axes)]
                row, column = (int((1 - a / n) * e) for a, n, e in zip(at, sizes, (height, width), strict=True))
                _mark(pixels, found == marked_label, row, column, colors[marked_label])
        drawn.append(Thumbnail(name, sides, width, height, _jpeg(pixels)))
    return tuple(drawn)


def _upright(plane: Shaped[np.ndarray, "u v"]) -> Shaped[np.ndarray, "v u"]:
    """Turn a RAS+ plane so that head or front is up, and the patient's right or front on the left."""
    return np.asarray(plane.T[::-1, ::-1])


def _resized(plane: Num[np.ndarray, "v u"], shape: tuple[int, int], *, order: int) -> Num[np.ndarray, "h w"]:
    factors = np.array(plane.shape) / np.array(shape)
    if order > 0:
        plane = ndimage.gaussian_filter(plane, np.maximum(factors - 1, 0) / 2, mode="nearest")
    resized: np.ndarray = ndimage.affine_transform(
        plane, factors, (factors - 1) / 2, output_shape=shape, output=plane.dtype, order=order, mode="nearest"
    )
    return resized


def _outline(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the innermost pixels of a structure; all of it where it is as thin."""
    inside: np.ndarray = ndimage.binary_erosion(mask, border_value=1)
    return np.asarray(mask & ~inside)


def _mark(pixels: Num[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], row: int, column: int, color: Color) -> None:
    """Draw a box around a place whose structure is only a few pixels wide."""
    pieces, _ = ndimage.label(mask)
    own = pieces == pieces[row, column] if pieces[row, column] else np.zeros_like(mask)
    if max(own.any(axis=0).sum(), own.any(axis=1).sum()) >= _MARKED_BELOW:
        return
    box = np.zeros_like(mask)
    box[max(row - _MARK, 0) : row + _MARK + 1, max(column - _MARK, 0) : column + _MARK + 1] = True
    pixels[_outline(box)] = color


def _jpeg(pixels: Num[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": _JPEG_QUALITY, "subsampling": 0}
    matplotlib.image.imsave(buffer, np.rint(pixels * 255).astype(np.uint8), format="jpeg", pil_kwargs=options)
    return buffer.getvalue()
