"""Where a NIfTI file's voxels lie: one reading for all commands, in millimetres, at right angles, doubts said."""

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float64
from nibabel.orientations import io_orientation

from promptlesion.data.nifti_file import VolumeError

CORNER_TOLERANCE_VOXELS = 0.1
"""Two grids whose corners lie no further apart are one: headers round."""
SHEAR_TOLERANCE = 5e-5
"""Largest cosine between two axes; from 1e-4 on ITK refuses a file."""

_MOST_ROUNDING = 1e-3
_SMALLEST_VOXEL_MM3 = 1e-9
_FURTHEST_MM = 1e7
_SIZE_TOLERANCE = 0.01
_UNITS_MM = {1: ("metre", 1e3), 3: ("micron", 1e-3)}
_GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def affine_of(header: nib.Nifti1Header) -> Float64[np.ndarray, "4 4"]:
    """Return the affine that nibabel takes: the sform, else the qform, else a guess from the voxel size."""
    return np.asarray(header.get_best_affine(), dtype=np.float64)


def checked_affine(affine: Float64[np.ndarray, "4 4"], path: Path) -> Float64[np.ndarray, "4 4"]:
    """Return the affine of a file; raises `VolumeError` where it places no voxels."""
    is_near = bool((np.abs(affine) < _FURTHEST_MM).all())  # false for what is no number
    if (
        not is_near
        or abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_VOXEL_MM3
        or np.isnan(io_orientation(affine)).any()
    ):
        raise VolumeError(f"{path}: expected a finite, invertible affine, found {affine.tolist()}", "no-affine")
    return affine


def checked_geometry(header: nib.Nifti1Header, path: Path) -> tuple[nib.Nifti1Header, dict[str, str]]:
    """Return the geometry of a file, nothing else of its header, and notes on what was read otherwise than it stands.

    Further axes of length 1 go, metres and microns become millimetres, a shear of rounding is straightened, and of two
    forms that disagree the sform is taken for both. Raises `VolumeError` for what is not 3-D, has no usable affine, or
    gives voxels two sizes.
    """
    geometry = nib.Nifti2Header() if isinstance(header, nib.Nifti2Header) else nib.Nifti1Header()
    for field in _GEOMETRY_FIELDS:
        geometry[field] = header[field]
    notes: dict[str, str] = {}
    _keep_three_axes(geometry, path, notes)
    _to_millimetres(geometry, notes)
    affine = checked_affine(affine_of(geometry), path)
    _agree(geometry, affine, path, notes)
    straight = straightened(affine, geometry.get_data_shape())
    if straight is not affine:
        notes["straightened"] = shear_note(affine)
        geometry.set_sform(straight, code=int(geometry["sform_code"]))
        _set_qform(geometry, straight)
    return geometry, notes


def corners_apart_mm(
    shape: tuple[int, ...], first: Float64[np.ndarray, "4 4"], second: Float64[np.ndarray, "4 4"]
) -> float:
    """Return how far a corner of a grid is moved at most from where one affine puts it to where another does."""
    corners = np.array(np.meshgrid(*((0.0, size - 1.0) for size in shape))).reshape(3, -1)
    apart = second - first
    with np.errstate(over="ignore"):
        return float(np.linalg.norm(apart[:3, :3] @ corners + apart[:3, 3:], axis=0).max())


def is_same_grid(shape: tuple[int, ...], first: Float64[np.ndarray, "4 4"], second: Float64[np.ndarray, "4 4"]) -> bool:
    """Whether two affines put a grid at one place, but for rounding."""
    voxel_mm = float(np.linalg.norm(first[:3, :3], axis=0).min())
    return corners_apart_mm(shape, first, second) <= CORNER_TOLERANCE_VOXELS * voxel_mm


def shear_of(affine: Float64[np.ndarray, "4 4"]) -> float:
    """Return the largest cosine between two axes: 0 at right angles."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(directions.T @ directions - np.eye(3)).max())


def shear_note(affine: Float64[np.ndarray, "4 4"]) -> str:
    """Say that an affine was straightened."""
    return f"axes that were not at right angles (cosine {shear_of(affine):.1g}), which ITK refuses, straightened"


def straightened(affine: Float64[np.ndarray, "4 4"], shape: tuple[int, ...]) -> Float64[np.ndarray, "4 4"]:
    """Return the affine of axes at right angles about the same middle; the affine itself where it has them already.

    Also itself where they are further off than rounding makes them: a tilted gantry is no rounding.
    """
    if not SHEAR_TOLERANCE < shear_of(affine) <= _MOST_ROUNDING:
        return affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing_mm)
    straight, middle = np.eye(4), (np.array(shape) - 1) / 2
    straight[:3, :3] = left @ right * spacing_mm
    straight[:3, 3] = affine[:3, 3] + (affine[:3, :3] - straight[:3, :3]) @ middle
    return straight


def _keep_three_axes(geometry: nib.Nifti1Header, path: Path, notes: dict[str, str]) -> None:
    shape = tuple(int(side) for side in geometry.get_data_shape())
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise VolumeError(f"{path}: expected a 3-D volume, found the shape {shape}", "not-3d")
    if min(shape) < 1:
        raise VolumeError(f"{path}: expected voxels along every axis, found the shape {shape}", "not-3d")
    if len(shape) > 3:
        geometry.set_data_shape(shape[:3])
        notes["further-axes"] = f"further axes of length 1 left away, {len(shape)}-D read as 3-D"


def _to_millimetres(geometry: nib.Nifti1Header, notes: dict[str, str]) -> None:
    name, millimetres = _UNITS_MM.get(int(geometry["xyzt_units"]) & 7, ("millimetre", 1.0))
    if millimetres == 1.0:
        return
    with np.errstate(over="ignore"):  # too far off then, and refused for it
        geometry["pixdim"][1:4] *= millimetres
        for field in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
            geometry[field] = geometry[field] * millimetres
    geometry.set_xyzt_units("mm")
    notes["unit"] = f"the header's unit, {name}, converted to millimetres"


def _agree(geometry: nib.Nifti1Header, affine: Float64[np.ndarray, "4 4"], path: Path, notes: dict[str, str]) -> None:
    """Note where other programs may see another scan, and leave one affine; two voxel sizes are an error."""
    if not geometry["sform_code"]:
        if not geometry["qform_code"]:
            notes["no-affine"] = "neither qform nor sform in the header: its orientation is a guess"
        return
    by_sform, by_pixdim = np.linalg.norm(affine[:3, :3], axis=0), np.abs(geometry["pixdim"][1:4].astype(np.float64))
    is_apart = bool((np.abs(by_pixdim - by_sform) > _SIZE_TOLERANCE * by_sform).any())
    is_left_out = bool((by_pixdim == 1.0).all() or not by_pixdim.all())  # as headers begin
    if is_apart and not is_left_out and shear_of(affine) <= SHEAR_TOLERANCE:
        sizes = [" x ".join(f"{side:.3g}" for side in sizes) for sizes in (by_sform, by_pixdim)]
        raise VolumeError(
            f"{path}: expected one voxel size, found {sizes[0]} mm by the sform and {sizes[1]} mm by pixdim, which "
            "programs read one or the other; correct the header or export the file anew",
            "two-affines",
        )
    if (is_apart and is_left_out) or (geometry["qform_code"] and not _has_qform(geometry, affine)):
        notes["two-affines"] = (
            "a sform with which qform or pixdim disagree, the sform taken: other programs may see another scan"
        )
        geometry["pixdim"][1:4] = by_sform
        _set_qform(geometry, affine)


def _set_qform(geometry: nib.Nifti1Header, affine: Float64[np.ndarray, "4 4"]) -> None:
    if geometry["qform_code"]:
        geometry.set_qform(affine, code=int(geometry["qform_code"]))


def _has_qform(geometry: nib.Nifti1Header, affine: Float64[np.ndarray, "4 4"]) -> bool:
    """Whether the qform is this affine; a shear, which none can hold, is not looked at."""
    try:
        qform = np.asarray(geometry.get_qform(), dtype=np.float64)
    except ValueError:
        return False
    if not np.isfinite(qform).all():
        return False
    return shear_of(affine) > SHEAR_TOLERANCE or is_same_grid(geometry.get_data_shape(), affine, qform)
