"""DICOM series become volumes: by position, in HU, whole, and whatever their files are called."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.data.sources.conftest import SPACING_MM, uid

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.spec import DatasetError

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real CT of {SHARED} is absent")
Write = Callable[..., list[Any]]
Prepare = Callable[..., tuple[Any, Any]]


def shuffle(folder: Path, target: Path) -> None:
    """Copy the files under other names, without ending, into nested folders."""
    names = random.Random(5).sample(range(1000), len(list(folder.iterdir())))
    for path, name in zip(sorted(folder.iterdir()), names, strict=True):
        place = target / f"disk {name % 3}" / "ÄÖ" / f"{name:04d}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


@pytest.mark.shared_data
@needs_shared_data
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_the_shared_series_becomes_the_shared_volume(tmp_path: Path, prepared: Prepare, is_shuffled: bool) -> None:
    folder = SHARED / "dicom_abdomen"
    if is_shuffled:
        shuffle(folder, tmp_path / "in")
        folder = tmp_path / "in"
    image, labels = prepared(folder)
    expected = nib.load(SHARED / "Dataset103_AbdomenOrgans" / "imagesTr" / "ABDSLAB_0000.nii.gz")
    assert np.array_equal(image.affine, expected.affine)
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj), np.asarray(expected.dataobj))
    assert not np.asarray(labels.dataobj).any()


@pytest.mark.shared_data
@needs_shared_data
def test_the_shared_series_without_a_slice_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(SHARED / "dicom_abdomen", tmp_path / "in")
    files = sorted((tmp_path / "in").iterdir())
    (tmp_path / "in").chmod(0o755)
    files[9].unlink()
    with pytest.raises(DatasetError) as refused:
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'in'}: series 'CT Body 3.0' of 19 slices: expected a slice every 2 mm")
    assert "found 4 mm, 1 slice(s) missing," in message
    assert f"{files[10]} (at -786.5 mm) and {files[8]} (at -782.5 mm)" in message
    assert not (tmp_path / "out").exists()


def test_slices_are_sorted_by_position_under_any_name(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, lps_affine: Callable[..., np.ndarray]
) -> None:
    write_series(tmp_path / "ordered", hu)
    shuffle(tmp_path / "ordered", tmp_path / "in")
    (tmp_path / "in" / "README.txt").write_text("not DICOM")
    image, labels = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.affine, lps_affine(), atol=1e-5)
    assert labels.shape == hu.shape
    assert not np.asarray(labels.dataobj).any()


def test_a_second_run_has_nothing_to_do_and_a_changed_file_is_converted_again(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    write_series(tmp_path / "in" / "1", hu)
    write_series(tmp_path / "in" / "2", hu, series=2)
    out = tmp_path / "out"
    assert write_source(open_source(tmp_path / "in"), out).num_written == 2
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = write_source(open_source(tmp_path / "in"), out)
    assert (again.num_written, again.num_kept) == (0, 2)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    write_series(tmp_path / "in" / "1", hu + np.int16(1))
    changed = write_source(open_source(tmp_path / "in"), out)
    assert (changed.num_written, changed.num_kept) == (1, 1)
    image = nib.load(out / "imagesTr" / "S0001_01_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), hu + 1)
    write_series(tmp_path / "other", hu, series=3)
    with pytest.raises(DatasetError, match=r"expected an empty folder or one that `prepare` wrote from these files"):
        write_source(open_source(tmp_path / "other"), out)


def test_oblique_series_keep_their_place(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    row = np.array([0.9, 0.3, -0.2]) / np.linalg.norm([0.9, 0.3, -0.2])
    column = np.cross([0.1, 0.2, 0.97], row)
    column -= (column @ row) * row
    column /= np.linalg.norm(column)
    datasets = write_series(tmp_path / "in", hu, directions=(*row, *column))
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)
    for index, dataset in enumerate(datasets):
        rows, columns = 5, 9
        spacing = dataset.PixelSpacing
        lps = (
            np.array(dataset.ImagePositionPatient, dtype=float)
            + np.array(dataset.ImageOrientationPatient[:3], dtype=float) * columns * spacing[1]
            + np.array(dataset.ImageOrientationPatient[3:], dtype=float) * rows * spacing[0]
        )
        world = image.affine @ (columns, rows, index, 1)
        assert np.allclose(world[:3], lps * (-1, -1, 1), atol=1e-4)


def test_it_agrees_with_itk(tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare) -> None:
    """Another implementation of the same standard, on an oblique coronal series."""
    import SimpleITK

    row, column = np.array([0.96, 0.28, 0.0]), np.array([0.28 * 0.6, -0.96 * 0.6, -0.8])
    write_series(tmp_path / "in", hu, directions=(*row, *column))
    image, _ = prepared(tmp_path / "in")
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "in")))
    expected = reader.Execute()
    assert np.array_equal(SimpleITK.GetArrayFromImage(expected).T, np.asarray(image.dataobj))
    for voxel in [(0, 0, 0), (5, 3, 2), (13, 11, 6)]:
        world = image.affine @ (*voxel, 1)
        assert np.allclose(world[:3] * (-1, -1, 1), expected.TransformIndexToPhysicalPoint(voxel), atol=1e-4)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1.0, -1000.0, "int16"), (2.0, -1024.0, "int16"), (0.5, 0.25, "float32")]
)
def test_values_are_rescaled_to_hu(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, slope: float, intercept: float, dtype: str
) -> None:
    wanted = np.rint((hu - intercept) / slope) * slope + intercept
    write_series(tmp_path / "in", wanted, slope=slope, intercept=intercept)
    image, _ = prepared(tmp_path / "in")
    assert image.get_data_dtype() == np.dtype(dtype)
    assert np.array_equal(np.asarray(image.dataobj), wanted)


@pytest.mark.parametrize("is_declared", [True, False])
def test_padding_becomes_air(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, is_declared: bool
) -> None:
    padding = -1300 if is_declared else -3024
    hu[0, :, :] = padding

    def declare(dataset: Any, index: int) -> None:
        if is_declared:
            # as an unsigned number, though the pixels are signed
            dataset.add_new("PixelPaddingValue", "US", 65536 + padding + 1024)

    write_series(tmp_path / "in", hu, change=declare)
    image, _ = prepared(tmp_path / "in")
    hu[0, :, :] = -1024
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_several_missing_slices_are_named(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "in", hu, skip=(2, 4))
    with pytest.raises(DatasetError, match=r"every 2.5 mm, found 5 mm, 1 slice\(s\) missing, .*; 5 mm, 1 slice"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_uneven_spacing_is_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def move(dataset: Any, index: int) -> None:
        dataset.ImagePositionPatient[2] += 0.9 * (index >= 4)

    write_series(tmp_path / "in", hu, change=move)
    with pytest.raises(DatasetError, match=r"every 2.5 mm, found 3.4 mm between .*slice003.dcm .*slice004.dcm"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_rounded_positions_are_no_gap(tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare) -> None:
    def rounded(dataset: Any, index: int) -> None:
        dataset.ImagePositionPatient = [round(float(value), 1) for value in dataset.ImagePositionPatient]

    write_series(tmp_path / "in", hu, spacing_mm=(0.8, 0.9, 0.625), change=rounded)
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)
    assert image.header.get_zooms()[2] == pytest.approx(0.625, abs=0.02)


def test_a_slice_that_is_there_twice_counts_once(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    write_series(tmp_path / "in", hu)
    shutil.copyfile(tmp_path / "in" / "slice003.dcm", tmp_path / "in" / "copy.dcm")

    def other_uid(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(99, index)

    write_series(tmp_path / "in" / "again", hu, skip=(0, 1, 2, 3, 4, 6), change=other_uid)
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_two_slices_of_one_position_that_differ_are_refused(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    write_series(tmp_path / "in", hu)

    def other_uid(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(99, index)

    write_series(tmp_path / "in" / "again", hu + np.int16(7), skip=(0, 1, 2, 3, 4, 6), change=other_uid)
    with pytest.raises(DatasetError, match=r"one slice at a position, found two that differ, .*slice005.dcm"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_phases_of_one_series_are_volumes_each(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    for phase in (1, 2):

        def number(dataset: Any, index: int, phase: int = phase) -> None:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(98, phase, index)
            dataset.AcquisitionNumber = phase

        write_series(tmp_path / "in" / str(phase), hu + np.int16(phase), change=number)
    for name, phase in (("S0001_01", 1), ("S0001_02", 2)):
        image, _ = prepared(tmp_path / "in", name)
        assert np.array_equal(np.asarray(image.dataobj), hu + phase)


def test_what_is_no_ct_volume_is_left_out_and_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def scout(dataset: Any, index: int) -> None:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def mr(dataset: Any, index: int) -> None:
        dataset.Modality = "MR"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    def no_place(dataset: Any, index: int) -> None:
        del dataset.ImagePositionPatient

    write_series(tmp_path / "in" / "a", hu)
    write_series(tmp_path / "in" / "b", hu[:, :, :1], series=2, change=scout)
    write_series(tmp_path / "in" / "c", hu[:, :, :2], series=3, change=mr)
    write_series(tmp_path / "in" / "d", hu[:, :, :1], series=4, change=no_place)
    write_series(tmp_path / "in" / "e", hu[:, :, :2], series=5)
    # a reformat inside the first series
    write_series(tmp_path / "in" / "f", hu[:, :, :1], directions=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0), change=_renamed(6))
    (tmp_path / "in" / "notes.txt").write_text("x")
    source = open_source(tmp_path / "in")
    assert [case.name for case in source.cases] == ["S0001_01"]
    said = "\n".join(source.notes)
    for reason in (
        "1 file(s) left out, CT localizer",
        "2 file(s) left out, modality MR",
        "CT without position",
        "1 file(s) left out, not DICOM",
        "of 2 slices: left out, a volume needs 3 or more",
        "of 1 slices: left out",
    ):
        assert reason in said


def _renamed(number: int) -> Callable[[Any, int], None]:
    def rename(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(97, number, index)

    return rename


def test_a_tilted_stack_is_made_straight(tmp_path: Path, write_series: Write, prepared: Prepare) -> None:
    """A bright rod that runs along the patient's axis stays where it is in the world; its slices lean."""
    columns, rows, slices = 20, 40, 9
    angle = np.radians(20.0)
    directions = (1.0, 0.0, 0.0, 0.0, np.cos(angle), np.sin(angle))
    step = np.array([0.0, 0.0, 3.0])
    origin = np.array([-8.0, -20.0, 50.0])
    row, column = np.array(directions[:3]), np.array(directions[3:])
    grid = np.indices((columns, rows, slices)).reshape(3, -1)
    world = origin[:, None] + row[:, None] * grid[0] + column[:, None] * grid[1] + step[:, None] * grid[2]
    hu = np.rint(-1000 + 1500 * np.exp(-((world[0] - 1.0) ** 2 + (world[1] + 4.0) ** 2) / (2 * 4.0**2)))
    hu = hu.reshape(columns, rows, slices).astype(np.int16)
    write_series(
        tmp_path / "in", hu, directions=directions, step_mm=step, spacing_mm=(1.0, 1.0, 3.0), origin_mm=tuple(origin)
    )
    image, _ = prepared(tmp_path / "in")
    turned = image.affine[:3, :3] / image.header.get_zooms()
    assert np.allclose(turned.T @ turned, np.eye(3), atol=1e-5)
    assert image.header.get_zooms()[2] == pytest.approx(3.0 * np.cos(angle), abs=1e-4)
    straight = np.asarray(image.dataobj).astype(float)
    assert straight.shape[1] > rows  # the box grew, so that nothing is cut off
    points = image.affine @ np.stack([*np.indices(straight.shape).reshape(3, -1), np.ones(straight.size)])
    expected = -1000 + 1500 * np.exp(-((-points[0] - 1.0) ** 2 + (-points[1] + 4.0) ** 2) / (2 * 4.0**2))
    from_files = straight.ravel() > -1020
    assert from_files.mean() > 0.5
    assert np.abs(straight.ravel() - expected)[from_files].mean() < 3
    assert np.abs(straight.ravel() - expected)[from_files & (expected > -500)].max() < 20
    card = json.loads((tmp_path / "out" / "acquisition.json").read_text())["S0001_01"]
    assert card["straightened_tilt_degrees"] == pytest.approx(20.0, abs=0.1)
    notes = json.loads((tmp_path / "out" / "prepared" / "S0001_01.json").read_text())["notes"]
    assert any("gantry tilted by 20.0 degrees" in note for note in notes)


def test_emptied_identifiers_do_not_mix_series(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def emptied(dataset: Any, index: int) -> None:
        for tag in ("SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "PatientID"):
            setattr(dataset, tag, "")
        dataset.SeriesNumber = None

    for series in (1, 2):
        write_series(tmp_path / "in", hu, series=series, change=emptied)
        for path in (tmp_path / "in").glob("slice*"):
            path.rename(path.with_name(f"{series}{path.name}"))
    source = open_source(tmp_path / "in")
    assert [(case.name, len(case.files)) for case in source.cases] == [("S0001_01", 7), ("S0002_01", 7)]


def test_slices_that_share_one_identifier_are_slices_each(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    def same(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(96)

    write_series(tmp_path / "in", hu, change=same)
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_cases_are_numbered_by_patient_and_series(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    for series, patient in ((3, "Zoe"), (1, "Abe"), (2, "Zoe")):
        write_series(tmp_path / "in" / f"{series}", hu, series=series, patient=patient)
    source = open_source(tmp_path / "in")
    assert [(case.name, case.origin["patient_id"]) for case in source.cases] == [
        ("S0001_01", "Abe"),
        ("S0002_01", "Zoe"),
        ("S0002_02", "Zoe"),
    ]
    assert source.subject_pattern == r"^(S\d+)_"


def test_a_refused_series_stops_the_rest_unless_it_is_skipped(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    write_series(tmp_path / "in" / "whole", hu, series=2, patient="B")
    write_series(tmp_path / "in" / "broken", hu, series=1, patient="A", skip=(3,))
    source = open_source(tmp_path / "in")
    with pytest.raises(DatasetError, match=r"broken: series .* missing"):
        write_source(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = write_source(source, tmp_path / "out", skips_refused=True)
    assert (done.num_written, len(done.refused)) == (1, 1)
    assert [path.name for path in (tmp_path / "out" / "imagesTr").iterdir()] == ["S0002_01_0000.nii.gz"]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 1


def test_truncated_pixels_are_refused_by_file(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "in", hu)
    path = tmp_path / "in" / "slice004.dcm"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"slice004.dcm: expected pixels"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLosslessSV1", "JPEG2000Lossless", "JPEGLSLossless"])
def test_compressed_series_are_read(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, syntax: str
) -> None:
    import gdcm

    syntaxes = {
        "RLELossless": gdcm.TransferSyntax.RLELossless,
        "JPEGLosslessSV1": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        "JPEG2000Lossless": gdcm.TransferSyntax.JPEG2000Lossless,
        "JPEGLSLossless": gdcm.TransferSyntax.JPEGLSLossless,
    }
    write_series(tmp_path / "plain", hu)
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "plain").iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntaxes[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(tmp_path / "in" / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_a_folder_without_ct_says_what_was_there(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def mr(dataset: Any, index: int) -> None:
        dataset.Modality = "MR"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    write_series(tmp_path / "in", hu, change=mr)
    with pytest.raises(DatasetError, match=r"expected CT series in DICOM, found none in 7 files\n.*modality MR"):
        open_source(tmp_path / "in")


def test_an_enhanced_multi_frame_ct_is_read(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    datasets = write_series(tmp_path / "single", hu)
    order = [3, 0, 6, 1, 5, 2, 4]
    enhanced = datasets[0]
    enhanced.SOPClassUID = enhanced.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    shared, frames = Dataset(), []
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = enhanced.ImageOrientationPatient
    measures.PixelSpacing = enhanced.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    for index in order:
        frame, position, transform = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = datasets[index].ImagePositionPatient
        transform.RescaleSlope, transform.RescaleIntercept = 1, -1024
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([transform])
        frames.append(frame)
    pixels = b"".join(datasets[index].PixelData for index in order)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(enhanced, tag)
    enhanced.NumberOfFrames, enhanced.PixelData = len(order), pixels
    enhanced.SharedFunctionalGroupsSequence = Sequence([shared])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence(frames)
    (tmp_path / "in").mkdir()
    enhanced.save_as(tmp_path / "in" / "enhanced.dcm", enforce_file_format=True)
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)
    assert np.allclose(image.header.get_zooms(), SPACING_MM)


def test_a_file_without_preamble_is_read(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    write_series(tmp_path / "in", hu)
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_linked_folders_and_folders_called_images_are_read(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare
) -> None:
    write_series(tmp_path / "archive" / "patient", hu)
    (tmp_path / "in" / "labels").mkdir(parents=True)
    (tmp_path / "in" / "images").symlink_to(tmp_path / "archive" / "patient")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "archive" / "patient")
    (tmp_path / "in" / "labels" / "round").symlink_to(tmp_path / "in")
    assert [len(case.files) for case in open_source(tmp_path / "in").cases] == [7]
    image, _ = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)


def test_without_the_extra_the_message_says_what_to_install(
    tmp_path: Path, hu: np.ndarray, write_series: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path / "in", hu)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install 'promptlesion\[dicom\]'"):
        open_source(tmp_path / "in")
