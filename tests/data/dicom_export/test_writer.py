"""Scans written as DICOM: independent readers find the same HU, the same places and the same masks."""

import itertools
import resource
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from promptlesion.data.dicom_export.writer import DicomExportError, export_dicom
from promptlesion.data.volume import Volume, read_volume

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

SHARED = Path(__file__).parents[4] / "shared" / "data"
SHAPE = (9, 7, 5)
SPACING_MM = (0.7, 0.9, 2.3)
LABELS = {"background": 0, "wall": 2, "calcified_plaque": 7, "cyst": 9}
SOURCES = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


def source(
    tmp_path: Path, order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (1, 1, 1), tilt_degrees: float = 0.0
) -> tuple[Volume, Volume]:
    """A scan and its labels, read from a file whose axis k runs along world axis order[k]; labels 2 and 7, no 9."""
    generator = np.random.default_rng(1)
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, flips, strict=True)):
        directions[world, axis] = sign
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [tilt_degrees, -tilt_degrees / 2, tilt_degrees / 3], degrees=True)
    affine[:3, :3] = turn.as_matrix() @ directions * SPACING_MM
    affine[:3, 3] = (-123.4, 56.7, -987.1)
    hu = generator.integers(-1024, 3071, SHAPE).astype(np.int16)
    labels = generator.choice([0, 2, 7], SHAPE, p=[0.7, 0.2, 0.1]).astype(np.uint8)
    labels[:, :, 1] = 0
    volumes = []
    for name, array in (("image", hu), ("labels", labels)):
        nib.Nifti1Image(array, affine).to_filename(tmp_path / f"{name}.nii.gz")
        volumes.append(read_volume(tmp_path / f"{name}.nii.gz"))
    return volumes[0], volumes[1]


def export(volumes: tuple[Volume, Volume], folder: Path, *, subject: str = "subject_3") -> Path:
    export_dicom(
        *volumes,
        name="case_1",
        subject=subject,
        label_names=LABELS,
        description="synthetic: promptlesion 0, test",
        folder=folder,
        lesion_types=("calcified_plaque", "cyst"),
    )
    return folder


def to_ras(array: np.ndarray, lps_affine: np.ndarray) -> nib.Nifti1Image:
    """A reader's voxels, first axis fastest on disk, as nibabel has them closest to RAS+."""
    return nib.as_closest_canonical(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps_affine))


def read_with_pydicom(folder: Path) -> nib.Nifti1Image:
    """By the standard's equation C.7.6.2.1-1, slices in the order of their positions."""
    slices = [pydicom.dcmread(path) for path in (folder / "ct").iterdir()]
    across, down = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    slices.sort(key=lambda item: np.cross(across, down) @ np.array(item.ImagePositionPatient, dtype=float))
    positions = np.array([item.ImagePositionPatient for item in slices], dtype=float)
    between_rows, between_columns = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        [across * between_columns, down * between_rows, positions[1] - positions[0], positions[0]]
    )
    hu = np.stack([item.pixel_array.T * float(item.RescaleSlope) + float(item.RescaleIntercept) for item in slices], -1)
    return to_ras(hu, affine)


def read_with_simpleitk(folder: Path) -> nib.Nifti1Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder / "ct")))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return to_ras(sitk.GetArrayFromImage(image).T.astype(float), affine)


def read_segment(folder: Path, label: str) -> nib.Nifti1Image:
    """With highdicom's reader, on the grid of all slices."""
    segmentation = highdicom.seg.segread(folder / "seg.dcm")
    number = segmentation.get_segment_numbers(segment_label=label)[0]
    scan = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in (folder / "ct").iterdir()])
    mask = segmentation.get_volume(segment_numbers=[number], combine_segments=True, relabel=True).match_geometry(scan)
    return to_ras(mask.array.transpose(2, 1, 0).astype(np.uint8), mask.affine[:, [2, 1, 0, 3]])


def test_names_of_any_script_and_length_stay_apart(tmp_path: Path) -> None:
    """A label of DICOM has at most 64 characters."""
    long = "opacity_of_the_left_lower_lobe_that_was_seen_in_the_first_examination_"
    for number, names in enumerate(({"стенка": 2, "опухоль": 7}, {f"{long}a": 2, f"{long}b": 7})):
        image, labels = source(tmp_path)
        folder = tmp_path / str(number)
        export_dicom(
            image,
            labels,
            name="case_1",
            subject="subject_3",
            label_names={"background": 0, **names},
            description="synthetic: promptlesion 0, test",
            folder=folder,
            lesion_types=(),
        )
        told = [segment.SegmentLabel for segment in pydicom.dcmread(folder / "seg.dcm").SegmentSequence]
        assert len(set(told)) == 2
        assert told == list(names) or {name[:62] for name in told} == {long[:62]}
        for label, value in zip(told, names.values(), strict=True):
            found = read_segment(folder, label)
            np.testing.assert_array_equal(np.asarray(found.dataobj) > 0, labels.array == value)


@pytest.mark.parametrize("tilt_degrees", [0.0, 11.0])
def test_independent_readers_find_the_same_scan_and_masks(tmp_path: Path, tilt_degrees: float) -> None:
    for number, (order, flips) in enumerate(SOURCES[:: 7 if tilt_degrees else 5]):
        image, labels = source(tmp_path, order, flips, tilt_degrees)
        folder = export((image, labels), tmp_path / str(number))
        for read in (read_with_pydicom, read_with_simpleitk):
            found = read(folder)
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-6)
            np.testing.assert_array_equal(np.asarray(found.dataobj), image.array)
        assert len(list((folder / "ct").iterdir())) == SHAPE[2]  # cut along the file's own slices
        for label in ("wall", "calcified_plaque"):
            mask = read_segment(folder, label)
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-6)
            np.testing.assert_array_equal(np.asarray(mask.dataobj), labels.array == LABELS[label])


def test_slices_lie_as_radiologists_look_at_them(tmp_path: Path) -> None:
    for axis, directions in ((2, (1, 0, 0, 0, 1, 0)), (1, (1, 0, 0, 0, 0, -1)), (0, (0, 1, 0, 0, 0, -1))):
        order = (*(other for other in range(3) if other != axis), axis)
        folder = export(source(tmp_path, order, (1, -1, -1)), tmp_path / str(axis))
        first, second = (pydicom.dcmread(folder / "ct" / f"000{number}.dcm") for number in (1, 2))
        np.testing.assert_allclose(np.array(first.ImageOrientationPatient, dtype=float), directions, atol=1e-7)
        step = np.subtract(second.ImagePositionPatient, first.ImagePositionPatient)
        np.testing.assert_allclose(step, np.cross(directions[:3], directions[3:]) * SPACING_MM[2], atol=1e-6)


def test_the_files_say_what_they_are_and_whose_only_by_pseudonym(tmp_path: Path) -> None:
    folder = export(source(tmp_path), tmp_path / "dicom", subject="Bär 3")
    first = pydicom.dcmread(folder / "ct" / "0001.dcm")
    segmentation = highdicom.seg.segread(folder / "seg.dcm")
    for dataset in (first, segmentation):
        assert dataset.SyntheticData == dataset.PatientIdentityRemoved == "YES"
        assert dataset.DerivationDescription == "synthetic: promptlesion 0, test"
        assert (dataset.PatientID, str(dataset.PatientName)) == ("Bär 3", "Bär 3^")
        assert dataset.StudyInstanceUID == first.StudyInstanceUID
        assert dataset.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert list(first.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == ["wall", "calcified_plaque"]
    wall, plaque = (segmentation.get_segment_description(number) for number in (1, 2))
    assert wall.segmented_property_category.meaning == "Tissue"
    assert plaque.segmented_property_category.meaning == "Morphologically Abnormal Structure"
    assert plaque.segmented_property_type.meaning.lower() == "calcified atheromatous plaque"
    assert plaque.algorithm_type.value == "AUTOMATIC"
    assert {str(item.ReferencedSOPInstanceUID) for item in segmentation.SourceImageSequence} == {
        pydicom.dcmread(path).SOPInstanceUID for path in (folder / "ct").iterdir()
    }


def test_the_same_call_gives_the_same_bytes_and_another_scan_other_identifiers(tmp_path: Path) -> None:
    image, labels = source(tmp_path)
    first = contents(export((image, labels), tmp_path / "first"))
    again = contents(export((image, labels), tmp_path / "again"))
    assert len(first) == SHAPE[2] + 1 and first == again
    export((image, labels), tmp_path / "again")
    assert contents(tmp_path / "again") == first
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["again", "first"]
    brighter = export((image.with_array(image.array + np.int16(1)), labels), tmp_path / "brighter")
    uids = [
        {
            element.value
            for element in pydicom.dcmread(path).iterall()
            if element.VR == "UI" and "Class" not in element.name
        }
        for folder in (tmp_path / "first", brighter)
        for path in (folder / "ct" / "0001.dcm",)
    ]
    assert len(uids[0]) == 4 and not uids[0] & uids[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.dcm"))}


def test_hu_beyond_twelve_bits_and_with_fractions(tmp_path: Path) -> None:
    image, labels = source(tmp_path)
    hu = image.array.astype(np.float32) + np.float32(0.3)
    hu[0, 0, :2] = -32768.0, 32767.0
    folder = export((image.with_array(hu), labels), tmp_path / "dicom")
    for read in (read_with_pydicom, read_with_simpleitk):
        np.testing.assert_array_equal(np.asarray(read(folder).dataobj), np.rint(hu))


def test_a_scan_without_labels_has_no_segmentation(tmp_path: Path) -> None:
    image, labels = source(tmp_path)
    folder = export((image, labels.with_array(np.zeros_like(labels.array))), tmp_path / "dicom")
    assert [path.name for path in folder.iterdir()] == ["ct"]


def test_what_dicom_cannot_take_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = source(tmp_path)
    nan = image.array.astype(np.float32)
    nan[1, 2, 3] = np.nan
    sheared = image.affine.copy()
    sheared[0, 2] += 0.2
    for volumes, message in (
        ((image.with_array(nan), labels), "case_1: expected HU from -32768 to 32767, found nan"),
        ((image.with_array(nan + 1e5), labels), "case_1: expected HU from -32768 to 32767"),
        ((Volume(image.array, sheared), Volume(labels.array, sheared)), "case_1: expected axes at right angles"),
    ):
        with pytest.raises(DicomExportError, match=message):
            export(volumes, tmp_path / "dicom")
    for subject in ("", "a" * 64, "Doe^Jane", "a\\b", "a\nb"):
        with pytest.raises(DicomExportError, match="case_1: expected a subject of 1 to 63 printable characters"):
            export((image, labels), tmp_path / "dicom", subject=subject)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"expected the package highdicom, found it not.*promptlesion\[dicom\]"):
        export((image, labels), tmp_path / "dicom")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_full_disk_is_told_with_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    volumes = source(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=str(tmp_path / "dicom")):
            export(volumes, tmp_path / "dicom")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = export(source(tmp_path), tmp_path / "dicom")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DicomExportError, match=r"found ct, notes\.txt, seg\.dcm"):
        export(source(tmp_path), folder)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real CT of {SHARED} is absent")
def test_a_real_scan_survives_the_trip(tmp_path: Path) -> None:
    root = SHARED / "Dataset104_CTAVessel"
    image_path = next((root / "imagesTr").iterdir())
    image, labels = (read_volume(path) for path in (image_path, next((root / "labelsTr").iterdir())))
    folder = tmp_path / "dicom"
    export_dicom(
        image,
        labels.with_array(labels.array.astype(np.uint8)),
        name="real",
        subject="real",
        label_names={"background": 0, "lumen": 1, "wall": 2},
        description="test",
        folder=folder,
    )
    for read in (read_with_pydicom, read_with_simpleitk):
        found = read(folder)
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(found.dataobj), image.array)
    for label, value in (("lumen", 1), ("wall", 2)):
        np.testing.assert_array_equal(np.asarray(read_segment(folder, label).dataobj), labels.array == value)
