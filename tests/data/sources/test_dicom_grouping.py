"""Which DICOM slices make a volume: the series UID and geometry say so, not what stands beside them in a header."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from tests.data.sources.conftest import uid

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
Change = Callable[[Any, int], None]


def volumes(folder: Path, out: Path, *, skips_refused: bool = False) -> dict[str, np.ndarray]:
    write_source(open_source(folder), out, skips_refused=skips_refused)
    return {
        path.name.removesuffix("_0000.nii.gz"): np.asarray(nib.load(path).dataobj)
        for path in sorted((out / "imagesTr").iterdir())
    }


def setting(tag: str, value: Callable[[int], Any]) -> Change:
    def change(dataset: Any, index: int) -> None:
        setattr(dataset, tag, value(index))

    return change


def with_uids(number: int, **values: Any) -> Change:
    """Slices of their own, and some tags."""

    def change(dataset: Any, index: int) -> None:
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(90, number, index)
        for tag, value in values.items():
            setattr(dataset, tag, value)

    return change


HALF: dict[str, Callable[[int], Any]] = {
    "PatientID": lambda index: "P1" if index < 4 else "0001",
    "StudyInstanceUID": lambda index: uid(70, 1 + (index >= 3)),
    "FrameOfReferenceUID": lambda index: uid(71, 1 + (index >= 3)),
    "SeriesInstanceUID": lambda index: uid(72, 1 + (index >= 3)),
    "SeriesNumber": lambda index: 3 + (index >= 4),
    "SeriesDescription": lambda index: "Thorax" if index < 5 else "Thorax (corr)",
    "ConvolutionKernel": lambda index: "B30f" if index < 4 else "B31f",
    "AcquisitionNumber": lambda index: 1 + index // 3,
}
EACH: dict[str, Callable[[int], Any]] = {
    "StudyInstanceUID": lambda index: uid(73, index + 1),
    "FrameOfReferenceUID": lambda index: uid(74, index + 1),
    "SeriesInstanceUID": lambda index: uid(75, index + 1),
    "SeriesDescription": lambda index: f"IM{index}",
    "PatientID": lambda index: f"P{index}",
    "ImageType": lambda index: ["ORIGINAL", "PRIMARY", "AXIAL", f"X{index % 2}{index // 3}"],
}


@pytest.mark.parametrize(("tag", "value"), [*((tag, HALF[tag]) for tag in HALF), *((tag, EACH[tag]) for tag in EACH)])
def test_one_volume_is_one_case_whatever_else_differs(
    tmp_path: Path, hu: np.ndarray, write_series: Write, tag: str, value: Callable[[int], Any]
) -> None:
    write_series(tmp_path / "in", hu, change=setting(tag, value))
    found = volumes(tmp_path / "in", tmp_path / "out")
    assert list(found) == ["S0001_01"]
    assert np.array_equal(found["S0001_01"], hu)
    card = (tmp_path / "out" / "prepared" / "S0001_01.json").read_text()
    assert ("joined" in card) == (tag not in ("AcquisitionNumber", "ImageType"))
    assert "corr" not in card


def test_all_identifiers_anew_for_every_file_leave_one_volume(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    def change(dataset: Any, index: int) -> None:
        for tag in ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"):
            setattr(dataset, tag, EACH[tag](index))

    write_series(tmp_path / "in", hu, change=change)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


def test_a_torn_series_without_a_slice_is_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "in", hu, skip=(3,), change=setting("SeriesInstanceUID", EACH["SeriesInstanceUID"]))
    with pytest.raises(DatasetError, match=r"of 6 slices: expected a slice every 2.5 mm, found 5 mm, 1 slice"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_halves_with_a_gap_between_them_are_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "in", hu, skip=(3,), change=setting("PatientID", lambda index: f"P{int(index > 3)}"))
    with pytest.raises(DatasetError, match=r"of 6 slices: expected a slice every 2.5 mm, found 5 mm, 1 slice"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_patient_ids_that_one_series_has_are_one_subject(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "in" / "1", hu, patient="Before")
    write_series(tmp_path / "in" / "2", hu, series=2, change=setting("PatientID", lambda index: f"Z{int(index > 3)}"))
    write_series(tmp_path / "in" / "3", hu, series=3, patient="Z1")
    write_series(tmp_path / "in" / "4", hu, series=4, patient="Z0")
    names = [case.name for case in open_source(tmp_path / "in").cases]
    assert names == ["S0001_01", "S0002_01", "S0002_02", "S0002_03"]


@pytest.mark.parametrize("apart_mm", [0.0, 300.0])
def test_scans_that_share_one_dummy_series_uid_are_scans_each(
    tmp_path: Path, hu: np.ndarray, write_series: Write, apart_mm: float
) -> None:
    for number in (1, 2):

        def same(dataset: Any, index: int) -> None:
            dataset.SeriesInstanceUID = "1.2.3"

        write_series(
            tmp_path / "in" / str(number),
            hu + np.int16(number),
            series=number,
            patient=f"P{number}",
            origin_mm=(-30.0, -42.0, number * apart_mm),
            change=same,
        )
    found = volumes(tmp_path / "in", tmp_path / "out")
    assert list(found) == ["S0001_01", "S0002_01"]
    assert np.array_equal(found["S0001_01"], hu + 1)
    assert np.array_equal(found["S0002_01"], hu + 2)


@pytest.mark.parametrize(
    "tags",
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B60f"}, {"ConvolutionKernel": "B80f"}),
        ({"ScanOptions": "TP0PC"}, {"ScanOptions": "TP75PC"}),
        ({"KVP": 80}, {"KVP": 140}),
        (
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "DET_A"]},
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "DET_B"]},
        ),
        ({"ImageComments": "0 %"}, {"ImageComments": "40 %"}),
        ({"SeriesDescription": "DIAST"}, {"SeriesDescription": "SYST"}),
        ({"ContentTime": "101010"}, {"ContentTime": "101012"}),
        (
            {"AcquisitionNumber": 1, "ConvolutionKernel": "B30f"},
            {"AcquisitionNumber": 1, "ConvolutionKernel": "B60f"},
            {"AcquisitionNumber": 2, "ConvolutionKernel": "B30f"},
            {"AcquisitionNumber": 2, "ConvolutionKernel": "B60f"},
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("has_one_uid", [False, True])
def test_what_shares_places_is_told_apart(
    tmp_path: Path, hu: np.ndarray, write_series: Write, tags: tuple[dict[str, Any], ...], has_one_uid: bool
) -> None:
    for number, values in enumerate(tags):
        change = with_uids(number, **values, **({"SOPInstanceUID": uid(5)} if has_one_uid else {}))
        write_series(tmp_path / "in" / str(number), hu + np.int16(number), change=change)
    found = list(volumes(tmp_path / "in", tmp_path / "out").values())
    assert [next(k for k in range(9) if np.array_equal(one, hu + k)) for one in found] == list(range(len(tags)))


@pytest.mark.parametrize("tag", ["ConvolutionKernel", "KVP", "SeriesDescription", "AcquisitionNumber"])
def test_interleaved_stacks_are_volumes_each(tmp_path: Path, hu: np.ndarray, write_series: Write, tag: str) -> None:
    write_series(tmp_path / "in" / "a", hu, change=with_uids(1, **{tag: "1"}))
    write_series(
        tmp_path / "in" / "b", hu + np.int16(1), origin_mm=(-30.0, -42.0, -100.25), change=with_uids(2, **{tag: "2"})
    )
    found = volumes(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(found["S0001_01"], hu)
    assert np.array_equal(found["S0001_02"], hu + 1)


@pytest.mark.parametrize("number", [0, 6])
def test_copies_are_left_out_by_their_hu_alone(
    tmp_path: Path, hu: np.ndarray, write_series: Write, number: int
) -> None:
    """The same UIDs under another description, other stored values for the same HU: one volume. One HU off: none."""

    def corrected(dataset: Any, index: int) -> None:
        dataset.SeriesDescription = "corrected"

    write_series(tmp_path / "in" / "a", hu)
    write_series(tmp_path / "in" / "b", hu, intercept=-1000, change=corrected)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)
    hu[3, 4, number] += 1
    write_series(tmp_path / "in" / "b", hu, intercept=-1000, skip=(2,))
    with pytest.raises(DatasetError, match=rf"found two that differ, .*slice00{number}.dcm and .*slice00{number}.dcm"):
        volumes(tmp_path / "in", tmp_path / "again")


def test_equal_bytes_of_other_hu_are_no_copies(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def shifted(dataset: Any, index: int) -> None:
        dataset.RescaleIntercept = -24
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(91, index)

    write_series(tmp_path / "in" / "a", hu)
    write_series(tmp_path / "in" / "b", hu, skip=(0, 1, 2, 4, 5, 6), change=shifted)
    with pytest.raises(DatasetError, match=r"found two that differ, .*slice003.dcm and .*slice003.dcm"):
        volumes(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(("spacing_mm", "is_rounding"), [(0.8002, True), (0.8007, True), (0.806, False), (0.9, False)])
@pytest.mark.parametrize("first", [2, 5])
def test_another_pixel_spacing_is_rounding_or_refused(
    tmp_path: Path, hu: np.ndarray, write_series: Write, spacing_mm: float, is_rounding: bool, first: int
) -> None:
    write_series(
        tmp_path / "in", hu, change=setting("PixelSpacing", lambda index: [0.9, 0.8 if index < first else spacing_mm])
    )
    if is_rounding:
        (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
        assert np.array_equal(found, hu)
    else:
        with pytest.raises(DatasetError, match=rf"expected one pixel spacing .*{spacing_mm}.* mm, .*slice00\d.dcm"):
            volumes(tmp_path / "in", tmp_path / "out")


def broken(what: str) -> Change:
    def change(dataset: Any, index: int) -> None:
        if index != 6:
            return
        if what == "position":
            del dataset.ImagePositionPatient
        elif what == "orientation":
            dataset.ImageOrientationPatient = [0.0] * 6
        elif what == "quantity":
            dataset.RescaleType = "MGML"
        elif what == "rows":
            del dataset.Rows
        elif what == "slope":
            dataset.RescaleSlope = 0

    return change


@pytest.mark.parametrize("what", ["position", "orientation", "quantity", "rows", "slope"])
def test_a_series_is_not_cut_short_by_a_slice_that_is_none(
    tmp_path: Path, hu: np.ndarray, write_series: Write, what: str
) -> None:
    write_series(tmp_path / "in" / "whole", hu, series=2, patient="A")
    write_series(tmp_path / "in" / "broken", hu, patient="B", change=broken(what))
    with pytest.raises(DatasetError, match=r"series 'Abdomen 2.5' of 6 slices: expected every .*slice006.dcm, .*CT "):
        volumes(tmp_path / "in", tmp_path / "out")
    (found,) = volumes(tmp_path / "in", tmp_path / "out", skips_refused=True).values()
    assert np.array_equal(found, hu)


def test_images_of_one_place_are_left_out_and_said(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    """Bolus tracking: the same place, time and again."""
    write_series(tmp_path / "in" / "a", hu)
    write_series(tmp_path / "in" / "b", hu, series=2, step_mm=np.zeros(3))
    source = open_source(tmp_path / "in")
    assert [case.refusal for case in source.cases] == [None]
    assert any("of 7 slices: left out, a volume needs 3 or more" in note for note in source.notes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["series", "phases", "copies", "torn"])
def test_time_grows_with_the_files_and_no_faster(tmp_path: Path, write_series: Write, kind: str) -> None:
    """Up to 1000 files: as many series, phases of one, copies of one, or slices with a UID each."""

    def add(number: int) -> None:
        def change(dataset: Any, index: int) -> None:
            if kind in ("phases", "copies"):
                for tag in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber"):
                    setattr(dataset, tag, "7")
                dataset.AcquisitionNumber = number if kind == "phases" else 1
            if kind == "torn":
                dataset.SeriesInstanceUID = uid(76, number, index)

        write_series(tmp_path / str(number), np.full((16, 12, 50), -1000, np.int16), series=number, change=change)

    def seconds() -> float:
        start = time.process_time()
        open_source(tmp_path)
        return time.process_time() - start

    for number in range(1, 11):
        add(number)
    seconds()
    half = seconds()
    for number in range(11, 21):
        add(number)
    assert seconds() < 3 * half
