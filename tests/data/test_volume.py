import gzip
import itertools
import logging
import os
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from promptlesion.data.volume import (
    Volume,
    VolumeError,
    file_slice_axis,
    read_description,
    read_volume,
    write_volume,
)

SHAPE = (7, 9, 5)
SPACING_MM = (0.7, 0.9, 2.3)
AXIS_ORDERS_AND_FLIPS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def voxels(dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3071, SHAPE).astype(dtype)


def affine_of(order: tuple[int, ...], flips: tuple[int, ...], tilt_degrees: float = 0.0) -> np.ndarray:
    """File axis k runs along world axis order[k], in the direction flips[k], the whole turned by a tilt."""
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, flips, strict=True)):
        directions[world, axis] = sign
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [tilt_degrees, -tilt_degrees / 2, tilt_degrees / 3], degrees=True)
    affine[:3, :3] = turn.as_matrix() @ directions * SPACING_MM
    affine[:3, 3] = (-123.4, 56.7, -987.1)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray, *, forms: str = "both") -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.header.set_qform(affine, code="scanner" if forms in ("both", "qform") else "unknown")
    image.header.set_sform(affine, code="aligned" if forms in ("both", "sform") else "unknown")
    image.to_filename(path)
    return nib.load(path)


def header_geometry(path: Path) -> dict[str, bytes]:
    header = nib.load(path).header
    fields = ("dim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units")
    quaternion = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    geometry = {field: header[field].tobytes() for field in (*fields, *quaternion)}
    return {**geometry, "pixdim": header["pixdim"][:4].tobytes()}


@pytest.mark.parametrize("forms", ["both", "qform", "sform"])
@pytest.mark.parametrize("tilt_degrees", [0.0, 11.0])
def test_every_orientation_comes_in_as_ras_and_goes_out_as_it_was(
    tmp_path: Path, forms: str, tilt_degrees: float
) -> None:
    for order, flips in AXIS_ORDERS_AND_FLIPS:
        source, copy = tmp_path / "source.nii.gz", tmp_path / "copy.nii.gz"
        original = save(source, voxels(), affine_of(order, flips, tilt_degrees), forms=forms)
        volume = read_volume(source)

        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
        np.testing.assert_allclose(volume.spacing_mm, np.array(SPACING_MM)[np.argsort(order)], rtol=1e-5)
        index = np.array([2, 3, 4, 1])
        world = original.affine @ index
        ras_index = np.rint(np.linalg.inv(volume.affine) @ world).astype(int)
        assert volume.array[tuple(ras_index[:3])] == voxels()[tuple(index[:3])]

        write_volume(volume, copy)
        assert header_geometry(copy) == header_geometry(source)
        assert nib.load(copy).affine.tobytes() == original.affine.tobytes()
        assert nib.load(copy).get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asarray(nib.load(copy).dataobj), voxels())


def test_simpleitk_agrees_with_nibabel_about_what_was_written(tmp_path: Path) -> None:
    for (order, flips), tilt_degrees in itertools.product(AXIS_ORDERS_AND_FLIPS[::5], (0.0, 11.0)):
        save(tmp_path / "source.nii.gz", voxels(), affine_of(order, flips, tilt_degrees))
        path = tmp_path / "copy.nii.gz"
        write_volume(read_volume(tmp_path / "source.nii.gz"), path)
        check_simpleitk_agrees(path)


def test_simpleitk_agrees_about_a_volume_that_came_from_no_file(tmp_path: Path) -> None:
    path = tmp_path / "new.nii.gz"
    write_volume(Volume(array=voxels(), affine=affine_of((0, 1, 2), (1, 1, 1), 7.0)), path)
    check_simpleitk_agrees(path)


def check_simpleitk_agrees(path: Path) -> None:
    theirs, ours = sitk.ReadImage(str(path)), nib.load(path)
    affine = np.eye(4)
    affine[:3, :3] = np.array(theirs.GetDirection()).reshape(3, 3) * theirs.GetSpacing()
    affine[:3, 3] = theirs.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine, ours.affine, atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(theirs).T, np.asarray(ours.dataobj))
    assert theirs.GetPixelID() == sitk.sitkInt16


def test_the_geometry_of_a_volume_without_a_file_survives_two_trips(tmp_path: Path) -> None:
    path, again = tmp_path / "new.nii.gz", tmp_path / "again.nii.gz"
    volume = Volume(array=voxels(), affine=affine_of((0, 1, 2), (1, 1, 1), 4.0))
    write_volume(volume, path)
    first = read_volume(path)
    np.testing.assert_allclose(first.affine, volume.affine, rtol=1e-6)
    write_volume(first, again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_types_without_rescaling_are_kept(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "volume.nii"
    array = (voxels(np.int32) % 200).astype(dtype)
    write_volume(Volume(array=array, affine=np.diag([*SPACING_MM, 1.0])), path)
    read = read_volume(path)
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, array)


def test_rescaling_is_undone_and_hu_are_written_as_they_are(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.nii.gz", tmp_path / "copy.nii.gz"
    image = nib.Nifti1Image(voxels(np.uint16) % 4000, np.diag([*SPACING_MM, 1.0]))
    image.header.set_slope_inter(1.0, -1024.0)
    image.to_filename(source)
    volume = read_volume(source)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, np.asarray(nib.load(source).dataobj).astype(np.float32))
    write_volume(volume.with_array(np.rint(volume.array).astype(np.int16)), copy)
    stored = nib.load(copy).dataobj
    assert (stored.slope, stored.inter) == (1.0, 0.0)
    np.testing.assert_array_equal(stored.get_unscaled(), np.asarray(nib.load(source).dataobj))


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_both_nifti_versions_and_byte_orders(tmp_path: Path, image_class: type, endianness: str) -> None:
    source, copy = tmp_path / "source.nii.gz", tmp_path / "copy.nii.gz"
    header = image_class.header_class(endianness=endianness)
    affine = affine_of((2, 0, 1), (-1, 1, -1), 3.0)
    header.set_data_dtype(np.int16)
    image_class(voxels(), affine, header).to_filename(source)
    volume = read_volume(source)
    assert volume.array.dtype.isnative
    write_volume(volume, copy)
    assert isinstance(nib.load(copy), image_class)
    assert nib.load(copy).affine.tobytes() == nib.load(source).affine.tobytes()
    np.testing.assert_array_equal(np.asarray(nib.load(copy).dataobj), voxels())


def test_only_the_geometry_of_the_source_is_kept(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.nii.gz", tmp_path / "copy.nii.gz"
    image = nib.Nifti1Image(voxels(), np.diag([*SPACING_MM, 1.0]))
    image.header["descrip"] = b"JANE DOE 1961-02-03"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"JANE DOE"))
    image.to_filename(source)
    write_volume(read_volume(source), copy)
    assert b"JANE" in gzip.decompress(source.read_bytes())
    assert b"JANE" not in gzip.decompress(copy.read_bytes())


def test_equal_volumes_give_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    volume = Volume(array=voxels(), affine=np.diag([*SPACING_MM, 1.0]))
    write_volume(volume, first)
    write_volume(volume, second)
    os.utime(first, (0, 0))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.nii.gz", "second.nii.gz"]


def test_labels_of_a_read_volume_go_back_to_its_orientation(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.nii.gz", tmp_path / "labels.nii.gz"
    save(source, voxels(), affine_of((1, 2, 0), (-1, -1, 1)))
    volume = read_volume(source)
    write_volume(volume.with_array((volume.array > 500).astype(np.uint8)), copy)
    np.testing.assert_array_equal(np.asarray(nib.load(copy).dataobj), voxels() > 500)
    assert nib.load(copy).get_data_dtype() == np.uint8


def test_another_grid_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "source.nii.gz", voxels(), affine_of((0, 1, 2), (-1, -1, 1)))
    volume = read_volume(tmp_path / "source.nii.gz")
    with pytest.raises(VolumeError, match=r"expected an array of shape \(7, 9, 5\) on this grid, found \(7, 9, 4\)"):
        volume.with_array(volume.array[..., 1:])
    smaller = Volume(array=volume.array[..., 1:], affine=volume.affine, source_header=volume.source_header)
    moved = Volume(array=volume.array, affine=volume.affine + 1e-9, source_header=volume.source_header)
    for other in (smaller, moved):
        with pytest.raises(VolumeError, match=r"copy.nii.gz: expected the grid of the file"):
            write_volume(other, tmp_path / "copy.nii.gz")
    assert not (tmp_path / "copy.nii.gz").exists()


def test_names_and_types_that_nifti_cannot_have(tmp_path: Path) -> None:
    volume = Volume(array=voxels(), affine=np.diag([*SPACING_MM, 1.0]))
    with pytest.raises(VolumeError, match=r"volume.mha: expected a name ending in .nii.gz or .nii"):
        write_volume(volume, tmp_path / "volume.mha")
    for dtype in ("bool", "int64", "float16"):
        with pytest.raises(VolumeError, match=f"expected voxels of a type NIfTI readers know, found {dtype}"):
            write_volume(volume.with_array(volume.array.astype(dtype)), tmp_path / "volume.nii.gz")


def test_damaged_files_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="nibabel.global")
    whole = tmp_path / "whole.nii.gz"
    save(whole, voxels(), affine_of((0, 1, 2), (1, 1, 1)))
    content = whole.read_bytes()
    plain = gzip.decompress(content)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    damaged = {
        "empty (0 bytes)|an empty one": b"",
        "truncated": content[: len(content) // 2],
        "truncated or damaged": content[:-4],
        "damaged": bytes(flipped),
        "truncated file": gzip.compress(plain[:-10]),
        "truncated or damaged one": gzip.compress(plain[:100]),
        "found a truncated": b"no NIfTI at all",
    }
    for finding, part in damaged.items():
        path = tmp_path / "damaged.nii.gz"
        path.write_bytes(part)
        with pytest.raises(VolumeError, match=r"damaged.nii.gz: expected") as raised:
            read_volume(path)
        assert any(words in str(raised.value) for words in finding.split("|"))
    with pytest.raises(VolumeError, match=r"none.nii.gz: expected a NIfTI file, found none"):
        read_volume(tmp_path / "none.nii.gz")


def test_volumes_that_are_not_three_dimensional_or_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    nib.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.eye(4)).to_filename(path)
    with pytest.raises(VolumeError, match=r"expected a 3-D volume, found the shape \(3, 4, 5, 2\)"):
        read_volume(path)
    for row in ([0.0, 1.0, np.nan, 0.0], [0.0, 0.0, 0.0, 0.0]):
        image = nib.Nifti1Image(voxels(), np.eye(4))
        image.header["srow_y"] = row
        path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4) + voxels().tobytes(order="F")))
        with pytest.raises(VolumeError, match="expected a finite, invertible affine"):
            read_volume(path)
    rgb = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(rgb, np.eye(4)).to_filename(path)
    with pytest.raises(VolumeError, match="expected one number a voxel"):
        read_volume(path)


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real CT of {SHARED} is absent")
def test_real_scans_survive_the_trip(tmp_path: Path) -> None:
    paths = sorted(SHARED.glob("Dataset*/*Tr/*.nii.gz"))[::4]
    assert paths
    for source in paths:
        copy = tmp_path / source.name
        write_volume(read_volume(source), copy)
        assert header_geometry(copy) == header_geometry(source)
        assert nib.load(copy).affine.tobytes() == nib.load(source).affine.tobytes()
        original = np.asarray(nib.load(source).dataobj)
        assert np.asarray(nib.load(copy).dataobj).tobytes() == original.tobytes()


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -1024.0)])
def test_slices_that_are_read_some_at_a_time_are_those_nibabel_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slope: float, intercept: float
) -> None:
    monkeypatch.setattr("promptlesion.data.nifti_file._BYTES_AT_ONCE", 2 * 7 * 9 * 2 + 1)  # two slices of five
    for suffix, dtype in itertools.product((".nii", ".nii.gz"), (">i2", "<i2", "<u1", ">f4", "<f8")):
        path = tmp_path / f"volume{suffix}"
        image = nib.Nifti1Image((voxels(np.int32) % 250).astype(dtype), affine_of((2, 0, 1), (-1, 1, -1), 5.0))
        image.header.set_slope_inter(slope, intercept)
        image.to_filename(path)
        expected = nib.as_closest_canonical(nib.load(path))
        volume = read_volume(path)
        is_integer = np.dtype(dtype).kind in "iu" and slope == 1.0
        assert volume.array.dtype == (np.dtype(dtype).newbyteorder("=") if is_integer else np.float32)
        assert volume.array.flags.c_contiguous and volume.array.flags.writeable
        np.testing.assert_array_equal(volume.array, np.asarray(expected.dataobj).astype(volume.array.dtype))
        np.testing.assert_array_equal(volume.affine, expected.affine)


def test_a_large_scan_is_in_memory_once(tmp_path: Path) -> None:
    path = tmp_path / "large.nii.gz"
    array = np.zeros((256, 256, 200), np.int16)
    array[::3, :, ::7] = 100
    tracemalloc.start()
    try:
        write_volume(Volume(array=array, affine=np.diag([*SPACING_MM, 1.0])), path)
        written_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        volume = read_volume(path)
        read_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(volume.array, array)
    assert written_bytes < 0.2 * array.nbytes
    assert read_bytes < array.nbytes + 4 * 2**24


def test_what_is_compressed_bit_by_bit_is_what_is_compressed_at_once(tmp_path: Path) -> None:
    array = np.random.default_rng(3).normal(0, 30, (90, 80, 70)).astype(np.int16)
    for dtype in (np.int16, np.float32):
        volume = Volume(array=array.astype(dtype), affine=np.diag([*SPACING_MM, 1.0]))
        write_volume(volume, tmp_path / "volume.nii")
        write_volume(volume, tmp_path / "volume.nii.gz")
        compressed = gzip.compress((tmp_path / "volume.nii").read_bytes(), compresslevel=1, mtime=0)
        assert (tmp_path / "volume.nii.gz").read_bytes()[10:] == compressed[10:]
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(volume.affine, code="scanner")
    image.header.set_sform(volume.affine, code="scanner")
    assert (tmp_path / "volume.nii").read_bytes() == image.to_bytes()


def test_the_description_is_in_the_header_and_not_in_the_volume(tmp_path: Path) -> None:
    described, copy = tmp_path / "described.nii.gz", tmp_path / "copy.nii.gz"
    volume = Volume(array=voxels(), affine=np.diag([*SPACING_MM, 1.0]))
    for text in ("", "synthetic: promptlesion 0.1.0, promptlesion", "x" * 79):
        write_volume(volume, described, description=text)
        assert read_description(described) == text
        assert nib.load(described).header["descrip"].item().decode() == text
        write_volume(read_volume(described), copy)
        assert read_description(copy) == ""
    for text in ("x" * 80, "Läsion"):
        with pytest.raises(VolumeError, match="expected a description of at most 79 ASCII characters"):
            write_volume(volume, tmp_path / "other.nii.gz", description=text)
    assert not (tmp_path / "other.nii.gz").exists()


def test_slices_are_counted_along_the_axis_the_file_counts_them(tmp_path: Path) -> None:
    for order, flips in AXIS_ORDERS_AND_FLIPS[::7]:
        save(tmp_path / "source.nii.gz", voxels(), affine_of(order, flips, 9.0))
        assert file_slice_axis(read_volume(tmp_path / "source.nii.gz")) == order[2]
    assert file_slice_axis(Volume(array=voxels(), affine=np.eye(4))) == 2


def test_headers_that_promise_too_much_or_come_alone(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.header["dim"][1:4] = 32000
    path.write_bytes(gzip.compress(image.header.binaryblock + bytes(4) + voxels().tobytes()))
    with pytest.raises(VolumeError, match=r"expected \(32000, 32000, 32000\) voxels, found a truncated file"):
        read_volume(path)
    pair = nib.Nifti1Pair(voxels(), np.eye(4))
    path.write_bytes(gzip.compress(pair.header.binaryblock + bytes(4) + voxels().tobytes()))
    with pytest.raises(VolumeError, match="expected header and voxels in one NIfTI file, found a header alone"):
        read_volume(path)
    broken = nib.Nifti1Image(voxels(), np.eye(4))
    broken.header["scl_slope"], broken.header["scl_inter"] = 1.0, np.nan
    path.write_bytes(gzip.compress(broken.header.binaryblock + bytes(4) + voxels().tobytes()))
    with pytest.raises(VolumeError, match="found a truncated or damaged one"):
        read_volume(path)
