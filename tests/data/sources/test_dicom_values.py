"""Stored values become HU as every slice says, and what cannot be HU is refused by file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.sources.test_dicom_grouping import volumes

from promptlesion.data.sources import open_source
from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
Change = Callable[[Any, int], None]


def only_at(number: int, change: Callable[[Any], None]) -> Change:
    return lambda dataset, index: change(dataset) if index == number else None


def stored(dataset: Any) -> np.ndarray:
    return np.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns).copy()


@pytest.mark.parametrize("number", [0, 3, 6])
@pytest.mark.parametrize("tags", [("RescaleIntercept",), ("RescaleSlope",), ("RescaleSlope", "RescaleIntercept")])
@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_rescale_that_the_others_have_is_not_assumed(
    tmp_path: Path, hu: np.ndarray, write_series: Write, number: int, tags: tuple[str, ...], is_emptied: bool
) -> None:
    def lose(dataset: Any) -> None:
        for tag in tags:
            setattr(dataset, tag, None) if is_emptied else delattr(dataset, tag)

    write_series(tmp_path / "in", hu, change=only_at(number, lose))
    with pytest.raises(DatasetError, match=rf"series 'Abdomen 2.5' of 7 .* as 6 have them, .*slice00{number}.dcm$"):
        volumes(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("numbers", [{0}, {3}, {5, 6}, {0, 1, 2, 3, 4}])
def test_a_slice_with_another_intercept_than_its_values_is_named(
    tmp_path: Path, hu: np.ndarray, write_series: Write, numbers: set[int]
) -> None:
    def wrong(dataset: Any, index: int) -> None:
        dataset.RescaleIntercept = 0 if index in numbers else -1024

    write_series(tmp_path / "in", hu, change=wrong)
    with pytest.raises(DatasetError, match=rf"fat and air below 0, found .* in .*slice00{min(numbers)}.dcm: its resc"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_every_slice_has_its_own_rescale(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def own(dataset: Any, index: int) -> None:
        intercept = (-1024, 0, -2000)[index % 3]
        dataset.PixelData = (stored(dataset) - 1024 - intercept).astype("<i2").tobytes()
        dataset.RescaleIntercept = intercept

    write_series(tmp_path / "in", hu, change=own)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


def padded(value: int, **tags: Any) -> Change:
    def change(dataset: Any, index: int) -> None:
        values = stored(dataset)
        values[:, 0] = np.array(value).astype(np.int16)
        dataset.PixelData = values.tobytes()
        for tag, one in tags.items():
            if tag.startswith("PixelPadding"):
                dataset.add_new(tag, "US" if one >= 0 else "SS", one)
            else:
                setattr(dataset, tag, one)

    return change


@pytest.mark.parametrize(
    "change",
    [
        padded(63536, PixelPaddingValue=63536, PixelRepresentation=0),
        padded(-2000, PixelPaddingValue=63536),
        padded(-2000),
        padded(0, PixelPaddingValue=0),
        padded(2, PixelPaddingValue=0, PixelPaddingRangeLimit=3),
        padded(63536, PixelPaddingValue=63536, PixelRepresentation=0, BitsStored=12, HighBit=11),
    ],
)
def test_padding_is_air(tmp_path: Path, hu: np.ndarray, write_series: Write, change: Change) -> None:
    write_series(tmp_path / "in", hu, change=change)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    hu[0] = -1024
    assert np.array_equal(found, hu)


@pytest.mark.parametrize("value", [63536, 65535, 32768, 32767])
def test_padding_that_nothing_declares_is_no_metal(
    tmp_path: Path, hu: np.ndarray, write_series: Write, value: int
) -> None:
    write_series(tmp_path / "in", hu, change=only_at(2, lambda one: padded(value, PixelRepresentation=0)(one, 2)))
    with pytest.raises(
        DatasetError, match=r"slice002.dcm: expected HU, .* in 12 pixels: .* in .*: series 'Abdomen 2.5'"
    ):
        volumes(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(("value", "intercept"), [(0, 0.0), (1024, -1024.0), (-100, 0.0), (40, 0.0)])
def test_tissue_that_is_declared_padding_stays_tissue(
    tmp_path: Path, hu: np.ndarray, write_series: Write, value: int, intercept: float
) -> None:
    hu[5:9, 4:7, 2:5] = value + intercept

    def declare(dataset: Any, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", value)

    write_series(tmp_path / "in", hu, intercept=intercept, change=declare)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)
    assert "one that tissue has" in (tmp_path / "out" / "prepared" / "S0001_01.json").read_text()


def of_type(**tags: Any) -> Change:
    def change(dataset: Any, index: int) -> None:
        for tag, value in tags.items():
            setattr(dataset, tag, value)

    return change


DERIVED = ["DERIVED", "SECONDARY", "AXIAL"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        *((of_type(RescaleType=one), "another quantity") for one in ("MGML", "Z_EFF", "HU_MOD", "ED", "mg/ml", "PCT")),
        *((of_type(ImageType=[*DERIVED, one]), "another quantity") for one in ("MD_IODINE", "MAT_SPECIFIC", "EFF_Z")),
        *(
            (of_type(ImageType=[*DERIVED, one]), "secondary capture")
            for one in ("SCREEN SAVE", "CAPTURE", "SCREENSHOT")
        ),
        (of_type(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", BitsStored=8), "secondary capture"),
        (of_type(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", RescaleIntercept=None), "secondary capture"),
    ],
)
def test_what_is_no_hu_is_left_out_and_said(
    tmp_path: Path, hu: np.ndarray, write_series: Write, change: Change, kind: str
) -> None:
    write_series(tmp_path / "in" / "a", hu)
    write_series(tmp_path / "in" / "b", hu, series=2, change=change)
    assert any(kind in note and "7 file(s) left out" in note for note in open_source(tmp_path / "in").notes)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


@pytest.mark.parametrize(
    "change",
    [
        *(of_type(RescaleType=one) for one in ("HU", "US", "hu", "HOUNSFIELD", "")),
        of_type(ImageType=["DERIVED", "SECONDARY", "AXIAL", "MPR"]),
        of_type(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
        of_type(PhotometricInterpretation="MONOCHROME1"),
    ],
)
def test_hu_under_another_word_is_hu(tmp_path: Path, hu: np.ndarray, write_series: Write, change: Change) -> None:
    write_series(tmp_path / "in", hu, change=change)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


def overlaid(dataset: Any, index: int) -> None:
    """Overlays in the bits above twelve, as old scanners wrote them."""
    dataset.BitsStored, dataset.HighBit = 12, 11
    values = stored(dataset).astype(np.uint16) & 0xFFF
    values[::2] |= 0x8000
    values[:, ::3] |= 0x1000
    dataset.PixelData = values.tobytes()


def on_top(dataset: Any, index: int) -> None:
    """Twelve bits at the upper end of sixteen."""
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 15, 0
    dataset.PixelData = (stored(dataset).astype(np.uint16) << 4).tobytes()


@pytest.mark.parametrize("is_signed", [0, 1])
@pytest.mark.parametrize("high_bit", [11, 15])
def test_bits_beside_the_stored_ones_are_no_values(
    tmp_path: Path, hu: np.ndarray, write_series: Write, is_signed: int, high_bit: int
) -> None:
    import SimpleITK

    def change(dataset: Any, index: int) -> None:
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, high_bit, is_signed
        if high_bit == 11:
            overlaid(dataset, index)

    write_series(tmp_path / "in", hu, intercept=0.0 if is_signed else -1024.0, change=change)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "in")))
    assert np.array_equal(SimpleITK.GetArrayFromImage(reader.Execute()).T, hu)


def test_values_at_the_upper_end_of_their_bits_are_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    """No reader shifts them: ITK and pydicom take the lower bits, which would be other values."""
    write_series(tmp_path / "in", hu, change=on_top)
    with pytest.raises(DatasetError, match=r"slice000.dcm: expected the high bit 11 of 12 bits, found 15"):
        volumes(tmp_path / "in", tmp_path / "out")
