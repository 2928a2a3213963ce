"""Volumes and arrays on another grid."""

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from scipy import ndimage

from promptlesion.data.volume import Volume

_SAME_SPACING_MM = 1e-3
_SMALLEST_SIGMA_VOXELS = 0.2
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


def resample_to_spacing(volume: Volume, spacing_mm: tuple[float, float, float], order: int) -> Volume:
    """The volume at another voxel size along the same axes; use order 1 for HU and 0 for labels.

    The outer corner of the first voxel stays where it was. Order 1 or more smooths before it coarsens and
    gives float32. At the same spacing nothing is interpolated and the very volume comes back.
    """
    current_mm = np.array(volume.spacing_mm)
    if np.abs(current_mm - spacing_mm).max() < _SAME_SPACING_MM:
        return volume
    factors = np.array(spacing_mm) / current_mm
    x, y, z = (max(1, round(length / factor)) for length, factor in zip(volume.shape, factors, strict=True))
    index_map = np.diag([*factors, 1.0])
    index_map[:3, 3] = (factors - 1.0) / 2.0
    affine = volume.affine @ index_map
    array = resample_array(volume.array, volume.affine, affine, (x, y, z), order, fill=None)
    return Volume(array=array, affine=affine)


def resample_array(
    array: Shaped[np.ndarray, "x y z"],
    source_affine: Float64[np.ndarray, "4 4"],
    target_affine: Float64[np.ndarray, "4 4"],
    target_shape: tuple[int, int, int],
    order: int,
    fill: float | None,
) -> Shaped[np.ndarray, "i j k"]:
    """Spline interpolation of this order at the voxel centres of the target grid.

    Order 0 keeps the array's type, higher orders give float32 and smooth first along axes that become coarser
    (a Gaussian that brings the voxel's width from the old to the new). A voxel reaches half a voxel beyond
    its centre; targets outside every voxel get `fill`, or the nearest voxel's value where `fill` is None.
    """
    index_map = np.linalg.inv(source_affine) @ target_affine
    matrix, offset = index_map[:3, :3], index_map[:3, 3]
    values = array if order == 0 else _smoothed(array.astype(np.float32, copy=False), matrix)
    diagonal = np.diag(matrix)
    is_diagonal = bool(np.allclose(matrix, np.diag(diagonal), rtol=0, atol=1e-9) and (diagonal > 0).all())
    resampled: np.ndarray = ndimage.affine_transform(
        values,
        diagonal if is_diagonal else matrix,
        offset,
        output_shape=target_shape,
        output=values.dtype,
        order=order,
        mode="nearest",
    )
    if fill is not None:
        resampled[_is_outside(array.shape, matrix, offset, target_shape)] = fill
    return resampled


def _smoothed(array: Float[np.ndarray, "x y z"], matrix: Float64[np.ndarray, "3 3"]) -> Float[np.ndarray, "x y z"]:
    widths = np.linalg.norm(matrix, axis=1)
    sigmas = np.sqrt(np.maximum(widths**2 - 1.0, 0.0)) / _FWHM_PER_SIGMA
    sigmas[sigmas < _SMALLEST_SIGMA_VOXELS] = 0.0
    if not sigmas.any():
        return array
    return np.asarray(ndimage.gaussian_filter(array, sigmas, mode="nearest"))


def _is_outside(
    shape: tuple[int, ...],
    matrix: Float64[np.ndarray, "3 3"],
    offset: Float64[np.ndarray, "3"],
    target_shape: tuple[int, int, int],
) -> Bool[np.ndarray, "i j k"]:
    i, j, k = np.ogrid[: target_shape[0], : target_shape[1], : target_shape[2]]
    is_outside = np.zeros(target_shape, dtype=bool)
    for length, row, first in zip(shape, matrix, offset, strict=True):
        index = row[0] * i + row[1] * j + row[2] * k + first
        is_outside |= (index < -0.5 - 1e-6) | (index > length - 0.5 + 1e-6)
    return is_outside
