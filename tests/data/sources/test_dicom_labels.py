"""SEG and RTSTRUCT objects become the label maps of the series they refer to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.sources.conftest import SHAPE, uid

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
Prepare = Callable[..., tuple[Any, Any]]
OBLIQUE = (0.96, 0.28, 0.0, -0.28 * 0.8, 0.96 * 0.8, 0.6)


@pytest.fixture
def organ() -> np.ndarray:
    """A box; column, row, slice."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:12, 3:10, 1:6] = True
    return mask


@pytest.fixture
def lesion() -> np.ndarray:
    """A smaller, lopsided one inside the box."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[4:8, 4:6, 2:4] = True
    mask[4, 6, 2] = True
    return mask


def write_seg(path: Path, datasets: list[Any], masks: dict[str, np.ndarray], *, kind: str = "BINARY") -> Any:
    """Write a DICOM-SEG with highdicom; masks run column, row, slice."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    if kind == "LABELMAP":
        pixels = (pixels * np.arange(1, len(masks) + 1)).max(axis=-1)
    seg = hd.seg.Segmentation(
        source_images=datasets,
        pixel_array=pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=uid(50, 1),
        series_number=50,
        sop_instance_uid=uid(50, 2),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=True,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return seg


def write_rtstruct(
    path: Path, datasets: list[Any], regions: dict[str, list[np.ndarray]], *, kind: str = "CLOSED_PLANAR"
) -> None:
    """Write an RTSTRUCT; every contour holds its corners in LPS millimetres."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(60, 1)
    dataset.Modality, dataset.PatientID = "RTSTRUCT", "P1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(1, 1), uid(60, 2)
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = datasets[0].FrameOfReferenceUID
    series.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.RTReferencedStudySequence = Sequence([study])
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    titles, contours = [], []
    for number, (name, outlines) in enumerate(regions.items(), start=1):
        title, region = Dataset(), Dataset()
        title.ROINumber, title.ROIName = number, name
        region.ReferencedROINumber, region.ContourSequence = number, Sequence([])
        for corners in outlines:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(corners)
            contour.ContourData = [float(f"{value:.4f}") for value in corners.ravel()]
            region.ContourSequence.append(contour)
        titles.append(title)
        contours.append(region)
    dataset.StructureSetROISequence, dataset.ROIContourSequence = Sequence(titles), Sequence(contours)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def outline(dataset: Any, columns: tuple[float, float], rows: tuple[float, float]) -> np.ndarray:
    """A rectangle on a slice, by the columns and rows of its edges, in LPS millimetres."""
    corners = [(columns[0], rows[0]), (columns[1], rows[0]), (columns[1], rows[1]), (columns[0], rows[1])]
    origin = np.array(dataset.ImagePositionPatient, dtype=float)
    along, down = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return np.array(
        [
            origin + along * column * float(dataset.PixelSpacing[1]) + down * row * float(dataset.PixelSpacing[0])
            for column, row in corners
        ]
    )


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("directions", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_segments_are_placed_by_position(
    tmp_path: Path,
    hu: np.ndarray,
    write_series: Write,
    prepared: Prepare,
    organ: np.ndarray,
    lesion: np.ndarray,
    kind: str,
    directions: tuple[float, ...],
) -> None:
    datasets = write_series(tmp_path / "in", hu, directions=directions)
    write_seg(
        tmp_path / "in" / "labels" / "seg", datasets, {"Liver Tumor": lesion, "Liver": organ & ~lesion}, kind=kind
    )
    image, labels = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(image.dataobj), hu)
    assert np.array_equal(labels.affine, image.affine)
    assert labels.get_data_dtype() == np.uint8
    names = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert names == {"background": 0, "Liver": 1, "Liver_Tumor": 2}
    assert np.array_equal(np.asarray(labels.dataobj), np.where(lesion, 2, organ.astype(np.uint8)))


def test_a_lesion_wins_over_its_organ_and_the_smaller_over_the_larger(
    tmp_path: Path,
    hu: np.ndarray,
    write_series: Write,
    prepared: Prepare,
    organ: np.ndarray,
    lesion: np.ndarray,
) -> None:
    body = np.ones(SHAPE, dtype=bool)
    datasets = write_series(tmp_path / "in", hu)
    # a lesion that covers more than its organ does: its name says what it is
    write_seg(tmp_path / "in" / "seg1", datasets, {"kidney": lesion, "kidney tumor": organ, "body": body})
    _, labels = prepared(tmp_path / "in")
    names = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert names == {"background": 0, "body": 1, "kidney": 2, "kidney_tumor": 3}
    assert np.array_equal(np.asarray(labels.dataobj), np.where(organ, 3, 1))


def test_a_segmentation_of_part_of_the_pixels_in_another_order_is_placed(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, organ: np.ndarray
) -> None:
    """Frames cropped and mirrored, as ITK-based tools write them: their own positions and directions say where."""
    import pydicom

    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "seg", datasets, {"organ": organ})
    seg = pydicom.dcmread(tmp_path / "seg")
    frames = seg.pixel_array
    rows_mm, columns_mm = (float(value) for value in datasets[0].PixelSpacing)
    cropped = frames[:, 2:, 1:][:, ::-1, :]  # rows from the last one up
    last_row = hu.shape[1] - 1
    shared = seg.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        position[0] += columns_mm
        position[1] += rows_mm * last_row
    seg.Rows, seg.Columns = cropped.shape[1:]
    bits = np.packbits(cropped.astype(bool).ravel(), bitorder="little").tobytes()
    seg.PixelData = bits + b"\0" * (len(bits) % 2)
    seg.save_as(tmp_path / "in" / "seg.dcm")
    _, labels = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(labels.dataobj), organ)


def test_segments_beside_the_pixels_are_refused(
    tmp_path: Path, hu: np.ndarray, write_series: Write, organ: np.ndarray
) -> None:
    import pydicom

    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "seg", datasets, {"organ": organ})
    seg = pydicom.dcmread(tmp_path / "seg")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 0.4
    seg.save_as(tmp_path / "in" / "seg.dcm")
    with pytest.raises(
        DatasetError, match=r"seg.dcm: expected segments on the pixels of .*, found frame 1 0.50 voxels"
    ):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 99.6
    seg.save_as(tmp_path / "in" / "seg.dcm")
    with pytest.raises(DatasetError, match=r"seg.dcm: expected structures within .*, found \d+ voxels outside"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize("directions", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_contours_are_filled_and_cut_holes(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, directions: tuple[float, ...]
) -> None:
    datasets = write_series(tmp_path / "in", hu, directions=directions)
    regions = {
        "Liver": [outline(datasets[index], (1.5, 11.5), (2.5, 9.5)) for index in (2, 3)]
        + [outline(datasets[3], (5.5, 8.5), (4.5, 6.5))],
        "GTV-1": [outline(datasets[2], (2.5, 4.5), (3.5, 5.5))],
    }
    write_rtstruct(tmp_path / "in" / "rs", datasets, regions)
    _, labels = prepared(tmp_path / "in")
    expected = np.zeros(SHAPE, dtype=np.uint8)
    expected[2:12, 3:10, 2:4] = 1
    expected[6:9, 5:7, 3] = 0
    expected[3:5, 4:6, 2] = 2
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"] == {
        "background": 0,
        "Liver": 1,
        "GTV-1": 2,
    }
    assert np.array_equal(np.asarray(labels.dataobj), expected)


def test_contours_between_slices_are_refused_and_points_are_no_region(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    between = outline(datasets[2], (2.5, 4.5), (3.5, 5.5)) + np.array([0.0, 0.0, 1.1])
    write_rtstruct(tmp_path / "in" / "rs", datasets, {"liver": [between]})
    with pytest.raises(
        DatasetError, match=r"rs: expected contours of 'liver' on the slices of .*found one 1.1 mm beside"
    ):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    write_rtstruct(tmp_path / "in" / "rs", datasets, {"isocenter": [between[:1]]}, kind="POINT")
    assert open_source(tmp_path / "in").labels == {"background": 0}


def test_labels_follow_a_tilted_series_onto_its_straight_grid(
    tmp_path: Path, write_series: Write, prepared: Prepare
) -> None:
    columns, rows, slices = 16, 40, 8
    angle = np.radians(15.0)
    directions = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    bright = np.zeros((columns, rows, slices), dtype=bool)
    bright[4:12, 10:24, 2:7] = True
    hu = np.where(bright, 400, -1000).astype(np.int16)
    datasets = write_series(
        tmp_path / "in",
        hu,
        directions=directions,
        step_mm=np.array([0.0, 0.0, 3.0]),
        spacing_mm=(1.0, 1.0, 3.0),
        origin_mm=(-8.0, -20.0, 50.0),
    )
    regions = {"organ": [outline(datasets[index], (3.5, 11.5), (9.5, 23.5)) for index in range(2, 7)]}
    write_rtstruct(tmp_path / "in" / "rs", datasets, regions)
    image, labels = prepared(tmp_path / "in")
    straight, painted = np.asarray(image.dataobj), np.asarray(labels.dataobj)
    assert straight.shape == painted.shape
    assert painted.sum() == bright.sum()
    assert straight[painted == 1].min() >= -300  # at the edge up to half air
    assert straight[painted == 0].max() <= -300


def test_labels_of_other_series_are_refused_or_left_out_and_said(
    tmp_path: Path, hu: np.ndarray, write_series: Write, organ: np.ndarray
) -> None:
    write_series(tmp_path / "in", hu)
    elsewhere = write_series(tmp_path / "elsewhere", hu, series=2)
    write_seg(tmp_path / "in" / "seg", elsewhere, {"organ": organ})
    source = open_source(tmp_path / "in")
    assert source.labels == {"background": 0}
    with pytest.raises(
        DatasetError, match=r"seg: expected labels of a CT series in this folder, found references to none of them"
    ):
        write_source(source, tmp_path / "out")
    conversion = write_source(source, tmp_path / "out", skips_refused=True)
    assert conversion.num_written == 1
    assert "seg: expected labels of a CT series" in conversion.refused[0]


def test_labels_find_a_series_whose_identifiers_were_emptied(
    tmp_path: Path, hu: np.ndarray, write_series: Write, prepared: Prepare, organ: np.ndarray
) -> None:
    import pydicom

    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"organ": organ})
    for path in (tmp_path / "in").glob("slice*"):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID = dataset.SOPInstanceUID = dataset.StudyInstanceUID = ""
        dataset.save_as(path)
    _, labels = prepared(tmp_path / "in")
    assert np.array_equal(np.asarray(labels.dataobj), organ)


def test_damaged_labels_are_refused_by_file(
    tmp_path: Path, hu: np.ndarray, write_series: Write, organ: np.ndarray
) -> None:
    import pydicom

    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"organ": organ})
    seg = pydicom.dcmread(tmp_path / "in" / "seg")
    del seg.SegmentSequence
    seg.save_as(tmp_path / "in" / "seg")
    with pytest.raises(DatasetError, match=r"seg: expected a whole SEG or RTSTRUCT object"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
