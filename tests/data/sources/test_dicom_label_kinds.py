"""What label files of archives are like: names in any script, odd contours, packed frames, wrong references, damage."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from tests.data.sources.conftest import SHAPE, uid
from tests.data.sources.test_dicom_labels import outline, write_rtstruct, write_seg

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
SQUARE = ((2.5, 5.5), (3.5, 6.5))
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"


def square() -> np.ndarray:
    """What `SQUARE` encloses on slice 2."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3:6, 4:7, 2] = True
    return mask


def prepare(folder: Path, out: Path, *, skips_refused: bool = False) -> tuple[Any, dict[str, dict[str, np.ndarray]]]:
    """Convert a folder; what was said, and the mask of every label that is there, by case."""
    source = open_source(folder)
    conversion = write_source(source, out, skips_refused=skips_refused)
    names = {value: name for name, value in json.loads((out / "dataset.json").read_text())["labels"].items() if value}
    maps = {path.name[:8]: np.asarray(nib.load(path).dataobj) for path in sorted((out / "labelsTr").iterdir())}
    masks = {
        case: {name: found == value for value, name in names.items() if (found == value).any()}
        for case, found in maps.items()
    }
    return ("\n".join((*source.notes, *conversion.notes, *conversion.refused))), masks


def changed(path: Path, change: Callable[[Any], None]) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def titled(path: Path, *titles: str) -> None:
    """Rename the regions or segments of a file."""

    def change(dataset: Any) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 192"
        items, tag = (
            (dataset.StructureSetROISequence, "ROIName")
            if dataset.Modality == "RTSTRUCT"
            else (dataset.SegmentSequence, "SegmentLabel")
        )
        for item, title in zip(items, titles, strict=True):
            setattr(item, tag, title)

    changed(path, change)


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_names_not_numbers_say_what_a_structure_is(
    tmp_path: Path, hu: np.ndarray, write_series: Write, kind: str
) -> None:
    """The same two names in two patients, in another order."""
    for number, titles in enumerate((("печень", "опухоль"), ("опухоль", "печень")), 1):
        datasets = write_series(tmp_path / "in" / str(number), hu + number, series=number, patient=f"P{number}")
        masks = {"печень": square(), "опухоль": np.roll(square(), 2, axis=2)}
        path = tmp_path / "in" / str(number) / "labels"
        if kind == "SEG":
            write_seg(path, datasets, {str(index): masks[title] for index, title in enumerate(titles)})
        else:
            slices = {"печень": 2, "опухоль": 4}
            write_rtstruct(
                path, datasets, {str(i): [outline(datasets[slices[t]], *SQUARE)] for i, t in enumerate(titles)}
            )
        titled(path, *titles)
    _, found = prepare(tmp_path / "in", tmp_path / "out")
    assert len(found) == 2
    for labels in found.values():
        assert set(labels) == {"печень", "опухоль"}
        assert all(np.array_equal(labels[title], mask) for title, mask in masks.items())


@pytest.mark.parametrize("titles", [("plaque <130", "plaque >130"), ("", ""), ("+", "?"), ("GTV 1", "GTV_1")])
def test_names_that_would_be_one_are_numbered_and_said(
    tmp_path: Path, hu: np.ndarray, write_series: Write, titles: tuple[str, str]
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    masks = [square(), np.roll(square(), 2, axis=2)]
    write_seg(tmp_path / "in" / "seg", datasets, {"a": masks[0], "b": masks[1]})
    titled(tmp_path / "in" / "seg", *titles)
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert said.count("is called") == 2
    assert [mask.tolist() for _, mask in sorted(found["S0001_01"].items())] == [mask.tolist() for mask in masks]


@pytest.mark.parametrize(("padding", "described"), [(0, 0), (5, 5), (5, None), (None, 0), (None, None)])
def test_the_background_of_a_label_map_is_no_label(
    tmp_path: Path, hu: np.ndarray, write_series: Write, padding: int | None, described: int | None
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"tumor": square()}, kind="LABELMAP")

    def change(seg: Any) -> None:
        pixels = seg.pixel_array
        seg.PixelData = np.where(pixels == 0, padding or 0, pixels).astype(np.uint8).tobytes()
        segments = {int(one.SegmentNumber): one for one in seg.SegmentSequence}
        seg.SegmentSequence = [segments[1]]
        if described is not None:
            other = pydicom.dcmread(tmp_path / "in" / "seg").SegmentSequence[-1]
            other.SegmentNumber, other.SegmentLabel = described, "Other"
            seg.SegmentSequence.append(other)
        if padding is None:
            del seg.PixelPaddingValue
        else:
            seg.PixelPaddingValue = padding

    changed(tmp_path / "in" / "seg", change)
    _, found = prepare(tmp_path / "in", tmp_path / "out")
    assert set(found["S0001_01"]) == {"tumor"}
    assert np.array_equal(found["S0001_01"]["tumor"], square())


def test_a_segment_zero_beside_another_background_is_a_segment(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"tumor": square()}, kind="LABELMAP")

    def change(seg: Any) -> None:
        seg.PixelData = np.where(seg.pixel_array == 1, 0, 255).astype(np.uint8).tobytes()
        seg.SegmentSequence = [one for one in seg.SegmentSequence if int(one.SegmentNumber) == 1]
        seg.SegmentSequence[0].SegmentNumber, seg.PixelPaddingValue = 0, 255

    changed(tmp_path / "in" / "seg", change)
    _, found = prepare(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"]["tumor"], square())


def run_length(data: bytes) -> bytes:
    """A frame of RLE in one segment of literal runs."""
    parts = [data[start : start + 128] for start in range(0, len(data), 128)]
    header = np.array([1, 64, *[0] * 14], dtype="<u4").tobytes()
    body = b"".join(bytes([len(part) - 1]) + part for part in parts)
    return header + body + b"\x80" * (len(body) % 2)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    body = compressor.compress(data) + compressor.flush()
    return body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize("columns", [13, 14, 16])
@pytest.mark.parametrize(
    ("syntax", "is_packed", "encode"),
    [
        (pydicom.uid.RLELossless, False, run_length),
        (pydicom.uid.RLELossless, True, run_length),
        (pydicom.uid.UID(DEFLATED_FRAMES), True, deflated),
        (pydicom.uid.DeflatedExplicitVRLittleEndian, True, None),
        (pydicom.uid.ImplicitVRLittleEndian, True, None),
    ],
)
def test_single_bits_of_any_size_and_syntax_are_read(
    tmp_path: Path, write_series: Write, columns: int, syntax: Any, is_packed: bool, encode: Any
) -> None:
    generator = np.random.default_rng(columns)
    hu = np.where(generator.random((columns, 11, 6)) < 0.5, -1000, 200).astype(np.int16)
    masks = {name: generator.random(hu.shape) < 0.3 for name in ("spleen", "liver")}
    masks["liver"] &= ~masks["spleen"]
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, masks)
    seg = pydicom.dcmread(tmp_path / "in" / "seg")
    frames = seg.pixel_array
    seg.file_meta.TransferSyntaxUID = syntax
    if encode is not None:
        raw = [np.packbits(one.ravel(), bitorder="little").tobytes() if is_packed else one.tobytes() for one in frames]
        seg.PixelData = encapsulate([encode(one) for one in raw])
        seg["PixelData"].VR, seg["PixelData"].is_undefined_length = "OB", True
    is_implicit = syntax == pydicom.uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(
        tmp_path / "in" / "seg", seg, implicit_vr=is_implicit, little_endian=True, force_encoding=encode is not None
    )
    _, found = prepare(tmp_path / "in", tmp_path / "out")
    assert all(np.array_equal(found["S0001_01"][name], mask) for name, mask in masks.items())


def test_contours_beyond_the_scan_leave_the_rest_and_are_said(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    below = outline(datasets[0], *SQUARE) - np.array([0, 0, 25.0])
    beside = outline(datasets[2], (-30.0, -20.0), (3.5, 6.5))
    write_rtstruct(tmp_path / "in" / "rs", datasets, {"GTV": [outline(datasets[2], *SQUARE), below, beside]})
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"]["GTV"], square())
    assert "2 of 3 contours of GTV lie beyond the scan" in said
    write_rtstruct(tmp_path / "in" / "rs", datasets, {"GTV": [below]})
    with pytest.raises(DatasetError, match=r"rs: expected contours within .*, found all 1 outside"):
        write_source(open_source(tmp_path / "in"), tmp_path / "other")


def test_planes_on_one_slice_are_joined_and_a_tiny_plaque_stays(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    planes = [outline(datasets[2], *SQUARE) + np.array([0, 0, beside]) for beside in (-0.5, 0, 0.5)]
    tiny = outline(datasets[4], (7.1, 7.4), (5.2, 5.4))
    write_rtstruct(
        tmp_path / "in" / "rs",
        datasets,
        {"liver": planes, "plaque": [tiny], "aorta": [outline(datasets[4], *((4.5, 9.5),) * 2)]},
    )
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"]["liver"], square())
    assert np.argwhere(found["S0001_01"]["plaque"]).tolist() == [[7, 5, 4]]
    assert "1 contour(s) of plaque enclose no voxel's centre" in said


def test_what_encloses_nothing_is_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    datasets = write_series(tmp_path / "in", hu)
    regions = {name: [outline(datasets[index], *SQUARE) for index in (2, 3)] for name in ("liver", "plaque", "spleen")}
    write_rtstruct(tmp_path / "in" / "rs", datasets, regions)

    def change(dataset: Any) -> None:
        for contour in dataset.ROIContourSequence[1].ContourSequence:
            contour.ContourGeometricType = "OPEN_PLANAR"
        dataset.ROIContourSequence[2].ContourSequence[1].ContourGeometricType = "OPEN_NONPLANAR"

    changed(tmp_path / "in" / "rs", change)
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert set(found["S0001_01"]) == {"liver", "spleen"}
    assert "rs: region 'plaque' left out, OPEN_PLANAR" in said
    assert "rs: contours of region 'spleen' left out, OPEN_NONPLANAR" in said


def test_a_structure_that_others_cover_is_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"calcification": square(), "plaque": square()})
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert set(found["S0001_01"]) == {"calcification"}
    assert "plaque lies wholly under other structures" in said


def test_a_faint_fractional_segment_is_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"plaque": square()}, kind="FRACTIONAL")
    changed(tmp_path / "in" / "seg", lambda seg: setattr(seg, "PixelData", (seg.pixel_array // 3).tobytes()))
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert not found["S0001_01"]
    assert "plaque is empty" in said


def test_the_frame_of_reference_alone_finds_every_series_of_the_patient(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    """An anonymiser gave all patients one frame of reference, and the labels' other references are gone."""

    def one_frame(dataset: Any, index: int) -> None:
        dataset.FrameOfReferenceUID = uid(9, 9)

    for number, patient in ((1, "P1"), (2, "P1"), (3, "P2")):
        datasets = write_series(
            tmp_path / "in" / str(number), hu + number, series=number, patient=patient, change=one_frame
        )
    write_rtstruct(tmp_path / "in" / "rs", datasets, {"GTV": [outline(datasets[2], *SQUARE)]})

    def change(dataset: Any) -> None:
        del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
        dataset.PatientID = "P1"

    changed(tmp_path / "in" / "rs", change)
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert [set(labels) for labels in found.values()] == [{"GTV"}, {"GTV"}, set()]
    assert "drawn on all 2 series" in said


def test_two_files_with_one_name_are_joined_and_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg1", datasets, {"tumor": square()})
    write_seg(tmp_path / "in" / "seg2", datasets, {"tumor": np.roll(square(), 1, axis=0)})
    said, found = prepare(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"]["tumor"], square() | np.roll(square(), 1, axis=0))
    assert "seg1 and" in said
    assert "tumor stands in 2 label files of one series, which were joined" in said


def without(*tags: str) -> Callable[[Any], None]:
    return lambda dataset: [delattr(dataset, tag) for tag in tags] and None


def twice_numbered(seg: Any) -> None:
    seg.SegmentSequence[1].SegmentNumber = 1


def undescribed(seg: Any) -> None:
    seg.SegmentSequence = seg.SegmentSequence[:1]


def cut_short(seg: Any) -> None:
    seg.PixelData = seg.PixelData[:20]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("SegmentSequence"), "SegmentSequence"),
        (without("NumberOfFrames"), "a position for each of 1 frames, found"),
        (without("PerFrameFunctionalGroupsSequence"), "a position for each of"),
        (without("PixelData"), "expected a segmentation with pixels, found Segmentation Storage"),
        (twice_numbered, "segment number 1 is there twice"),
        (undescribed, r"expected the segments \[1\], found number 2"),
        (cut_short, "bytes of pixels up to frame"),
    ],
)
def test_a_damaged_segmentation_costs_its_own_case(
    tmp_path: Path, hu: np.ndarray, write_series: Write, change: Callable[[Any], None], reason: str
) -> None:
    for number in (1, 2):
        datasets = write_series(tmp_path / "in" / str(number), hu + number, series=number, patient=f"P{number}")
        write_seg(
            tmp_path / "in" / str(number) / "seg", datasets, {"liver": square(), "tumor": np.roll(square(), 2, 2)}
        )
    changed(tmp_path / "in" / "1" / "seg", change)
    with pytest.raises(DatasetError, match=rf"1/seg: expected .*{reason}" if "expected" not in reason else reason):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    said, found = prepare(tmp_path / "in", tmp_path / "out", skips_refused=True)
    assert list(found) == ["S0002_01"]
    assert "1/seg: expected" in said


@pytest.mark.parametrize("length", [0.3, 0.6, 0.9, 0.99])
def test_a_truncated_structure_set_costs_its_own_case(
    tmp_path: Path, hu: np.ndarray, write_series: Write, length: float
) -> None:
    for number in (1, 2):
        datasets = write_series(tmp_path / "in" / str(number), hu + number, series=number, patient=f"P{number}")
        write_rtstruct(tmp_path / "in" / str(number) / "rs", datasets, {"GTV": [outline(datasets[2], *SQUARE)] * 9})
    path = tmp_path / "in" / "1" / "rs"
    path.write_bytes(path.read_bytes()[: int(length * path.stat().st_size)])
    said, found = prepare(tmp_path / "in", tmp_path / "out", skips_refused=True)
    assert list(found) == ["S0002_01"]
    assert "1/rs: expected a whole SEG or RTSTRUCT object" in said


def test_a_label_file_is_known_by_its_class_where_its_modality_is_gone(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    write_seg(tmp_path / "in" / "seg", datasets, {"tumor": square()})
    changed(tmp_path / "in" / "seg", lambda seg: setattr(seg, "Modality", ""))
    _, found = prepare(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"]["tumor"], square())


def test_more_structures_than_a_label_map_holds_are_refused_with_a_way_on(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    datasets = write_series(tmp_path / "in", hu)
    regions = {f"Nodule {number}": [outline(datasets[2], *SQUARE)] for number in range(256)}
    write_rtstruct(tmp_path / "in" / "rs", datasets, regions)
    with pytest.raises(DatasetError, match=r"in: expected at most 255 structures of different names.*give those"):
        open_source(tmp_path / "in")
