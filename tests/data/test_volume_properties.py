"""Whatever a header may say, the same values lie at the same places: against nibabel and SimpleITK."""

import gzip
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from promptlesion.data.sources.image_files import read_image
from promptlesion.data.volume import LPS_TO_RAS, Volume, VolumeError, read_volume, write_volume

MILLIMETRES = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
TYPES = ("int8", "uint8", "int16", "uint16", "int32", "float32", "float64")
many = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Draw axes in any order and direction, turned by any small angle, of any spacing, anywhere."""
    order, flips = draw(st.permutations(range(3))), draw(st.tuples(*[st.sampled_from((1, -1))] * 3))
    angles = draw(st.tuples(*[st.sampled_from((0.0, 0.0, 1e-3, 3.0, -17.0))] * 3))
    spacing = draw(st.tuples(*[st.floats(0.125, 10.0, width=32)] * 3))
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turn @ (np.eye(3)[:, order] * flips) * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500.0, 500.0, width=32)] * 3))
    return affine


@st.composite
def voxels(draw: st.DrawFn) -> np.ndarray:
    """Draw values that CTs and label maps have, in any type that formats share."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    low, high = (
        (-1024, 3071) if dtype.kind == "f" else (max(-1024, np.iinfo(dtype).min), min(3071, np.iinfo(dtype).max))
    )
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)))
    return draw(arrays.arrays(dtype, shape, elements=st.integers(low, high)))


def check_world(volume: Volume, array: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel of the file lies in the volume where it should, with its value; axes run to right, front and top."""
    indices = np.indices(array.shape).reshape(3, -1)
    world = affine[:3, :3] @ indices + affine[:3, 3:]
    found = np.linalg.solve(volume.affine[:3, :3], world - volume.affine[:3, 3:])
    np.testing.assert_allclose(found, np.rint(found), atol=2e-2)
    np.testing.assert_allclose(volume.array[tuple(np.rint(found).astype(int))], array.ravel(), rtol=1e-5, atol=1e-2)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")


def of_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels, in the file's order, and the affine to RAS as SimpleITK reads them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


def check_written(volume: Volume, folder: Path) -> None:
    """What is written is the same world for nibabel and for SimpleITK, and for us."""
    path = folder / "written.nii.gz"
    write_volume(volume, path)
    theirs = nib.load(path)
    check_world(volume, np.asarray(theirs.dataobj), theirs.affine)
    check_world(volume, *of_itk(path))
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert not again.notes


@many
@given(
    array=voxels(),
    affine=affines(),
    forms=st.sampled_from(("both", "qform", "sform")),
    unit=st.sampled_from(tuple(MILLIMETRES)),
    rescale=st.sampled_from(((np.nan, np.nan), (1.0, 0.0), (1.0, -1024.0), (0.5, 3.25), (0.0, 0.0))),
    is_big_endian=st.booleans(),
    is_second_version=st.booleans(),
    is_compressed=st.booleans(),
    num_further=st.integers(0, 2),
)
def test_nifti(
    array: np.ndarray,
    affine: np.ndarray,
    forms: str,
    unit: int,
    rescale: tuple[float, float],
    is_big_endian: bool,
    is_second_version: bool,
    is_compressed: bool,
    num_further: int,
) -> None:
    kind = nib.Nifti2Image if is_second_version else nib.Nifti1Image
    header = kind.header_class(endianness=">" if is_big_endian else "<")
    in_unit = np.diag([*[1 / MILLIMETRES[unit]] * 3, 1.0]) @ affine
    header.set_data_dtype(array.dtype)
    header.set_data_shape((*array.shape, *[1] * num_further))
    header.set_qform(in_unit, code=1 if forms != "sform" else 0)
    header.set_sform(in_unit, code=2 if forms != "qform" else 0)
    header["xyzt_units"] = unit
    header["scl_slope"], header["scl_inter"] = rescale
    header["vox_offset"] = 544 if is_second_version else 352
    stored = array.astype(header.get_data_dtype()).tobytes(order="F")
    content = header.binaryblock + bytes(4) + stored
    slope, intercept = rescale if np.isfinite(rescale).all() and rescale[0] else (1.0, 0.0)
    with TemporaryDirectory() as folder:
        path = Path(folder, "file.nii.gz" if is_compressed else "file.nii")
        path.write_bytes(gzip.compress(content) if is_compressed else content)
        volume = read_volume(path)
        check_world(volume, array * slope + intercept, affine)
        assert ("unit" in volume.notes) == (MILLIMETRES[unit] != 1.0)
        assert ("further-axes" in volume.notes) == (num_further > 0)
        np.testing.assert_array_equal(
            np.asarray(nib.load(path).dataobj).reshape(array.shape), array * slope + intercept
        )
        if not num_further and not is_second_version:  # which ITK does not read
            check_world(volume, *of_itk(path))
        check_written(read_image(path), Path(folder))


@many
@given(
    array=voxels(),
    affine=affines(),
    ending=st.sampled_from((".nrrd", ".nhdr", ".mha", ".mhd")),
    is_compressed=st.booleans(),
)
def test_nrrd_and_metaimage(array: np.ndarray, affine: np.ndarray, ending: str, is_compressed: bool) -> None:
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    with TemporaryDirectory() as folder:
        path = Path(folder, f"file{ending}")
        sitk.WriteImage(image, str(path), useCompression=is_compressed)
        volume = read_image(path)
        check_world(volume, array, affine)
        check_world(volume, *of_itk(path))
        assert not volume.notes
        check_written(volume, Path(folder))


SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "LPS": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "RAS": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
}
UNITS = {"mm": 1.0, "microns": 1e-3, "um": 1e-3, "cm": 10.0, "m": 1e3, None: 1.0}


@many
@given(array=voxels(), affine=affines(), space=st.sampled_from(tuple(SPACES)), unit=st.sampled_from(tuple(UNITS)))
def test_nrrd_of_any_space_and_unit(array: np.ndarray, affine: np.ndarray, space: str, unit: str | None) -> None:
    kinds = {"int8": "int8", "uint8": "uchar", "float32": "float", "float64": "double"}
    placed = np.diag([*SPACES[space], 1.0]) @ affine / (UNITS[unit])
    rows = [f"({','.join(repr(float(value)) for value in column)})" for column in placed[:3].T]
    lines = [
        *("NRRD0005", f"type: {kinds.get(str(array.dtype), str(array.dtype))}", "dimension: 3", f"space: {space}"),
        *(f"sizes: {' '.join(map(str, array.shape))}", f"space directions: {' '.join(rows[:3])}"),
        *(f"space origin: {rows[3]}", "endian: little", "encoding: raw", "# a remark", "my key:=a value"),
        *([f'space units: "{unit}" "{unit}" "{unit}"'] if unit else []),
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder, "file.nrrd")
        path.write_bytes("\n".join([*lines, "", ""]).encode() + array.tobytes(order="F"))
        volume = read_image(path)
        check_world(volume, array, affine)
        assert ("unit" in volume.notes) == (UNITS[unit] != 1.0)
        check_written(volume, Path(folder))


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.integers(0, 547), st.integers(0, 255)), min_size=1, max_size=5),
    is_second_version=st.booleans(),
)
def test_a_spoilt_nifti_header_is_read_or_refused_by_name(
    changes: list[tuple[int, int]], is_second_version: bool
) -> None:
    kind = nib.Nifti2Image if is_second_version else nib.Nifti1Image
    content = bytearray(
        kind(np.arange(315, dtype=np.int16).reshape(9, 7, 5), np.diag([-0.8, 0.7, 2.5, 1.0])).to_bytes()
    )
    for place, value in changes:
        content[place] = value
    with TemporaryDirectory() as folder:
        path = Path(folder, "spoilt.nii")
        path.write_bytes(content)
        try:
            read_volume(path)
        except VolumeError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vox_offset", 2**62),
        ("vox_offset", -8),
        ("srow_x", [1e-20, 0, 0, 0]),
        ("srow_y", [0, 1e30, 0, 0]),
        ("qoffset_x", 1e300),
    ],
)
def test_what_spoilt_headers_were_found_by(tmp_path: Path, field: str, value: float | list[float]) -> None:
    image = nib.Nifti2Image(np.zeros((9, 7, 5), np.int16), np.diag([-0.8, 0.7, 2.5, 1.0]))
    image.header.set_qform(image.affine, code=1)
    content = bytearray(image.to_bytes())
    header = nib.Nifti2Header(bytes(content[:540]))
    header[field] = value
    content[:540] = header.binaryblock
    path = tmp_path / "spoilt.nii"
    path.write_bytes(content)
    with suppress(VolumeError):
        assert "two-affines" in read_volume(path).notes
