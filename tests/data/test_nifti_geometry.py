"""What headers say of a place, read in one way: units, further axes, shear, forms that disagree, bytes that follow."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from promptlesion.data.volume import VolumeError, read_shape, read_volume, write_volume

AFFINE = np.array([[-0.8, 0, 0, 40], [0, 0.7, 0, -30], [0, 0, 2.5, 12], [0, 0, 0, 1.0]])
ARRAY = np.random.default_rng(0).integers(-1000, 1000, (9, 7, 5)).astype(np.int16)
UNITS = {1: 1e3, 2: 1.0, 3: 1e-3}


def save(path: Path, array: np.ndarray = ARRAY, affine: np.ndarray = AFFINE, **header: object) -> Path:
    """Write a file whose header is then changed."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_qform(affine, code=1)
    image.header.set_sform(affine, code=1)
    for field, value in header.items():
        image.header[field] = value
    path.write_bytes(gzip.compress(image.to_bytes()) if path.name.endswith(".gz") else image.to_bytes())
    return path


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_comes_in_as_millimetres_and_goes_out_as_such(tmp_path: Path, unit: int) -> None:
    scaled = np.diag([*[1 / UNITS[unit]] * 3, 1.0]) @ AFFINE
    volume = read_volume(save(tmp_path / "a.nii.gz", affine=scaled, xyzt_units=unit | 8))
    np.testing.assert_allclose(volume.file_affine, AFFINE, rtol=1e-6)
    assert ("unit" in volume.notes) == (unit != 2)
    write_volume(volume, tmp_path / "b.nii.gz")
    again = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(again.GetSpacing(), (0.8, 0.7, 2.5), rtol=1e-6)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("further", [(1,), (1, 1), (1, 1, 1, 1)])
def test_further_axes_of_length_1_are_left_away(tmp_path: Path, further: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii.gz", ARRAY.reshape(*ARRAY.shape, *further))
    volume = read_volume(path)
    assert read_shape(path) == volume.shape == ARRAY.shape
    np.testing.assert_array_equal(volume.array, ARRAY[::-1])
    assert list(volume.notes) == ["further-axes"]
    write_volume(volume, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "b.nii.gz").dataobj), ARRAY)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 5, 2), (9, 7, 5, 1, 2)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii", np.zeros(shape, dtype=np.int16))
    with pytest.raises(VolumeError, match=r"a.nii: expected a 3-D volume, found the shape \(9, 7"):
        read_volume(path)


@pytest.mark.parametrize("shear", [6e-5, 1e-4, 5e-4, 9e-4])
@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
def test_a_shear_of_rounding_is_straightened_so_that_itk_reads_it(
    tmp_path: Path, shear: float, axes: tuple[int, int]
) -> None:
    sheared = AFFINE.copy()
    sheared[axes] = shear * AFFINE[axes[1], axes[1]]
    volume = read_volume(save(tmp_path / "a.nii.gz", affine=sheared, qform_code=0))
    assert volume.shear < 1e-6
    assert "straightened" in volume.notes
    corners = np.array(np.meshgrid(*((0, side - 1) for side in ARRAY.shape))).reshape(3, -1)
    moved = (volume.file_affine - sheared)[:3] @ np.vstack([corners, np.ones(8)])
    assert np.linalg.norm(moved, axis=0).max() < 0.01
    write_volume(volume, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "b.nii.gz"))).T, ARRAY)


def test_a_tilted_gantry_is_no_rounding(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.5
    volume = read_volume(save(tmp_path / "a.nii.gz", affine=sheared, qform_code=0))
    assert volume.shear == pytest.approx(0.5 / np.hypot(0.5, 2.5), rel=1e-5)


def test_two_voxel_sizes_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", affine=np.eye(4), qform_code=0, pixdim=[1, 3, 3, 8, 0, 0, 0, 0])
    with pytest.raises(
        VolumeError, match=r"a.nii.gz: expected one voxel size, found 1 x 1 x 1 mm by the sform and 3 x 3 x 8"
    ) as raised:
        read_volume(path)
    assert raised.value.code == "two-affines"


def test_a_voxel_size_that_was_left_out_is_the_sforms(tmp_path: Path) -> None:
    """Headers begin with 1 x 1 x 1, and ITK believes them: what is written says it."""
    volume = read_volume(save(tmp_path / "a.nii.gz", qform_code=0, pixdim=[1, 1, 1, 1, 0, 0, 0, 0]))
    assert list(volume.notes) == ["two-affines"]
    write_volume(volume, tmp_path / "b.nii.gz")
    itk = sitk.ReadImage(str(tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(itk.GetSpacing(), (0.8, 0.7, 2.5), rtol=1e-6)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, AFFINE, rtol=1e-6)


def test_of_two_forms_that_disagree_the_sform_is_taken_and_written_for_both(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, AFFINE)
    image.header.set_qform(np.diag([0.8, 0.7, 2.5, 1.0]), code=1)
    image.header.set_sform(AFFINE, code=2)
    image.to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert list(volume.notes) == ["two-affines"]
    write_volume(volume, tmp_path / "b.nii.gz")
    header = nib.load(tmp_path / "b.nii.gz").header
    np.testing.assert_allclose(header.get_qform(), AFFINE, atol=1e-4)
    np.testing.assert_allclose(header.get_sform(), AFFINE, rtol=1e-6)


def test_a_qform_that_is_no_rotation_does_not_matter_beside_an_sform(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "a.nii.gz", quatern_b=3.0, quatern_c=3.0))
    np.testing.assert_allclose(volume.file_affine, AFFINE, rtol=1e-6)
    assert list(volume.notes) == ["two-affines"]


def test_a_file_without_directions_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # the codes of both forms; nibabel sets one when it writes
    path.write_bytes(content)
    assert list(read_volume(path).notes) == ["no-affine"]


@pytest.mark.parametrize("surplus", [b"x", b"garbage after the end", b"\x1f\x8b but no gzip", b"\0" * 5 + b"x"])
def test_bytes_after_the_volume_are_left_unread_and_said(tmp_path: Path, surplus: bytes) -> None:
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes() + surplus)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, ARRAY[::-1])
    assert list(volume.notes) == ["trailing-bytes"]
    plain = save(tmp_path / "b.nii")
    plain.write_bytes(plain.read_bytes() + surplus)
    assert list(read_volume(plain).notes) == ["trailing-bytes"]


def test_padding_with_zeros_and_several_gzip_members_are_no_matter(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content) + bytes(512))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    for name in "ab":
        assert not read_volume(tmp_path / f"{name}.nii.gz").notes


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-6],
        lambda content: content[:-8] + b"\1\2\3\4" + content[-4:],
        lambda content: content[:-4] + b"\1\2\3\4",
        lambda content: content[: len(content) // 2] + content[len(content) // 2 + 9 :],
    ],
)
def test_damage_is_still_damage(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = save(tmp_path / "a.nii.gz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(VolumeError, match=r"a.nii.gz: expected"):
        read_volume(path)


def test_a_file_that_is_compressed_by_its_name_alone_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, ARRAY[::-1])
    assert list(volume.notes) == ["not-compressed"]
