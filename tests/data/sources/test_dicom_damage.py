"""Damaged and foreign files cost themselves: each is named, and `--skip-refused` does without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.sources.test_dicom_grouping import volumes

from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]


def cut(content: bytes, at: int) -> bytes:
    return content[:at] if at >= 0 else content[: len(content) + at]


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda content, at=at: cut(content, at) for at in (0, 50, 131, 132, 140, 300, 500, 700, 900, -1, -250)),
        lambda content: bytes(len(content)),
        lambda content: content.replace(b"0.9\\0.8 ", b"0,9\\0,8 "),
        lambda content: content.replace(b"-86.5 ", b"-86.5x"),
    ],
)
def test_a_damaged_slice_is_named_and_skipped(
    tmp_path: Path, hu: np.ndarray, write_series: Write, damage: Callable[[bytes], bytes], capfd: Any
) -> None:
    """The last of its series: without it the rest would still make a volume, a slice shorter."""
    write_series(tmp_path / "in" / "a", hu, patient="A", series=2)
    write_series(tmp_path / "in" / "b", hu, patient="B")
    path = tmp_path / "in" / "b" / "slice006.dcm"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    with pytest.raises(DatasetError, match=r"slice006.dcm"):
        volumes(tmp_path / "in", tmp_path / "out")
    found = volumes(tmp_path / "in", tmp_path / "out", skips_refused=True)
    assert np.array_equal(found["S0001_01"], hu)
    assert "Traceback" not in "".join(capfd.readouterr())


def compressed(source: Path, target: Path, syntax: str) -> None:
    import gdcm

    target.mkdir(parents=True)
    for path in source.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(target / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


@pytest.mark.parametrize("syntax", ["JPEGLSLossless", "JPEG2000Lossless", "JPEGLosslessProcess14_1", "RLELossless"])
@pytest.mark.parametrize("is_zeroed", [False, True])
def test_a_truncated_codestream_is_named(
    tmp_path: Path, hu: np.ndarray, write_series: Write, syntax: str, is_zeroed: bool, capfd: Any
) -> None:
    import pydicom
    from pydicom.encaps import encapsulate, generate_frames

    write_series(tmp_path / "plain", hu)
    compressed(tmp_path / "plain", tmp_path / "in", syntax)
    path = tmp_path / "in" / "slice004.dcm"
    for share in (0.2, 0.5, 0.97):
        dataset = pydicom.dcmread(tmp_path / "in" / "slice003.dcm")
        (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
        rest = len(frame) - int(share * len(frame))
        dataset = pydicom.dcmread(path)
        dataset.PixelData = encapsulate([frame[:-rest] + bytes(rest) * is_zeroed])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
        with pytest.raises(
            DatasetError, match=r"slice004.dcm: expected pixels .* in .*: series 'Abdomen 2.5'"
        ) as error:
            volumes(tmp_path / "in", tmp_path / "out")
        assert "pip install" not in str(error.value)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("is_implicit", [True, False])
@pytest.mark.parametrize("is_little", [True, False])
@pytest.mark.parametrize("has_preamble", [True, False])
def test_files_that_name_no_transfer_syntax_are_read(
    tmp_path: Path, hu: np.ndarray, write_series: Write, is_implicit: bool, is_little: bool, has_preamble: bool
) -> None:
    import pydicom

    if is_implicit and not is_little:
        pytest.skip("DICOM has no implicit big endian")
    (tmp_path / "in").mkdir()
    for index, dataset in enumerate(write_series(tmp_path / "plain", hu)):
        del dataset.file_meta
        dataset.preamble = bytes(128) if has_preamble else None
        if not is_little:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        dataset["PixelData"].VR = "OW"
        options = {"implicit_vr": is_implicit, "little_endian": is_little, "enforce_file_format": False}
        pydicom.dcmwrite(tmp_path / "in" / f"{index}", dataset, **options)
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


def test_compressed_pixels_under_a_plain_syntax_are_named(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    write_series(tmp_path / "plain", hu)
    compressed(tmp_path / "plain", tmp_path / "in", "JPEG2000Lossless")
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.1\0\0\0"))
    with pytest.raises(DatasetError, match=r"slice00\d.dcm: expected pixels .*compressed ones"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_a_decoder_that_is_not_there_is_named(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    import pydicom

    write_series(tmp_path / "plain", hu)
    compressed(tmp_path / "plain", tmp_path / "in", "JPEG2000Lossless")
    for path in (tmp_path / "in").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
        dataset.save_as(path)
    with pytest.raises(DatasetError, match=r"High-Throughput JPEG 2000 .* no decoder .*pylibjpeg-openjpeg"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_more_pixels_than_the_header_says_are_refused(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def twice(dataset: Any, index: int) -> None:
        dataset.PixelData = dataset.PixelData * 2

    write_series(tmp_path / "in", hu, change=twice)
    with pytest.raises(DatasetError, match=r"slice000.dcm: expected pixels .* 672 bytes of pixels.* in place of 336"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_foreign_files_that_begin_as_dicom_may_are_left_out(
    tmp_path: Path, hu: np.ndarray, write_series: Write
) -> None:
    write_series(tmp_path / "in", hu)
    for number, start in enumerate((b"\x08\x00", b"\x00\x08", b"\x02\x00")):
        (tmp_path / "in" / f"{number}.bin").write_bytes(start + np.random.default_rng(number).bytes(3000))
    (tmp_path / "in" / "done").write_bytes(b"")
    (found,) = volumes(tmp_path / "in", tmp_path / "out").values()
    assert np.array_equal(found, hu)


def test_a_message_names_the_series_of_a_flat_folder(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def title(dataset: Any, index: int) -> None:
        dataset.SeriesDescription, dataset.RescaleIntercept = f"Series {dataset.SeriesNumber}", 0

    for number in (1, 2):
        write_series(tmp_path / str(number), hu, series=number, change=title if number == 2 else lambda *_: None)
        for path in (tmp_path / str(number)).iterdir():
            (tmp_path / "in").mkdir(exist_ok=True)
            path.rename(tmp_path / "in" / f"{number}_{path.name}")
    with pytest.raises(DatasetError, match=r"in: series 'Series 2' of 7 slices \(2_slice000.dcm, …\): expected HU"):
        volumes(tmp_path / "in", tmp_path / "out")


def test_a_packed_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "ct.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match=r"found 1 files of none; unpack .*ct.zip first"):
        volumes(tmp_path, tmp_path / "out")
