"""What painting a lesion did to the tissue around it, against the scan as it was."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from scipy import ndimage

_ROUNDING = 1e-4


@dataclass(frozen=True)
class SurroundingsError:
    """Error around one lesion, in HU; None where the box has no such voxel."""

    edge_hu: float | None
    beyond_hu: float | None
    step_hu: float
    profile_hu: tuple[float | None, ...]


def surroundings_error(
    before: Shaped[np.ndarray, "x y z"],
    after: Shaped[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    written: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    edge_mm: float,
    reach_mm: float,
    layer_mm: float,
) -> SurroundingsError:
    """Measure the mean absolute change outside a lesion's mask, and the step where the painting ends.

    Args:
        before: HU of the box as it was.
        after: HU of the box with the lesion.
        mask: of the lesion.
        written: voxels that were painted over; outside of it, and of the box, the scan is as it was.
        spacing_mm: of the scan.
        edge_mm: width of the blended edge: nearer than this counts as `edge_hu`.
        reach_mm: width of the ring beyond it that counts as `beyond_hu`.
        layer_mm: thickness of a layer of the profile.

    Returns:
        The two rings' error; the step, the mean absolute jump of the change between neighbouring voxels of which one
        was written; and the error layer by layer from the mask to the end of the outer ring.
    """
    change = np.abs(after.astype(np.float64) - before.astype(np.float64))
    distance_mm = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    # spacings read from files are not quite the round numbers they mean
    layers = np.ceil(distance_mm / layer_mm - _ROUNDING).astype(int)
    num_layers = int(np.ceil((edge_mm + reach_mm) / layer_mm - _ROUNDING))
    is_edge = (distance_mm > 0) & (distance_mm < edge_mm - _ROUNDING)
    is_beyond = (distance_mm > 0) & ~is_edge & (distance_mm < edge_mm + reach_mm - _ROUNDING)
    return SurroundingsError(
        edge_hu=_mean(change, is_edge),
        beyond_hu=_mean(change, is_beyond),
        step_hu=_step(change, written),
        profile_hu=tuple(_mean(change, layers == layer) for layer in range(1, num_layers + 1)),
    )


def _mean(change: Float64[np.ndarray, "x y z"], where: Bool[np.ndarray, "x y z"]) -> float | None:
    return float(change[where].mean()) if where.any() else None


def _step(change: Float64[np.ndarray, "x y z"], written: Bool[np.ndarray, "x y z"]) -> float:
    """Mean change of the written voxel over all pairs of face neighbours of which the other was not written."""
    padded, values = np.pad(written, 1), np.pad(change, 1)
    total, count = 0.0, 0
    for axis in range(3):
        for shift in (-1, 1):
            is_border = padded & ~np.roll(padded, shift, axis=axis)
            total += float(values[is_border].sum())
            count += int(is_border.sum())
    return total / max(count, 1)
