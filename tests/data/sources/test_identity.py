"""Patient identity stays behind: whatever stands in headers, names and paths, none of it is in the dataset folder."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from promptlesion.data.sources import open_source, write_source
from promptlesion.data.spec import DatasetError

Write = Callable[..., list[Any]]
SECRET = "Rumpelstilzchen"
SECRET_NUMBER = "47110815"
GEOMETRY = {
    *("SOPClassUID", "Modality", "ImageType", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    "SpecificCharacterSet",
}
# one of the standard's elements for every kind of value that can hold a name or a number
TEXT = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT")


def content_of(folder: Path) -> bytes:
    """Names and bytes of every file below the folder, decompressed as well."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            content = path.read_bytes()
            # of compressed bytes only the start can hold a name
            parts += [content[:64], gzip.decompress(content)] if path.name.endswith(".gz") else [content]
    return b"\0".join(parts)


def plant(dataset: Any, index: int) -> None:
    """Write the secret into every element that is not the image's geometry, and into private ones."""
    from pydicom.datadict import DicomDictionary
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    for tag, (kinds, many, _, retired, keyword) in DicomDictionary.items():
        if not keyword or keyword in GEOMETRY or tag >> 16 in (0x0000, 0x0002, 0x0004, 0xFFFE) or retired:
            continue
        if kinds in TEXT:
            is_number = kinds in ("DS", "IS")
            value = SECRET_NUMBER if is_number else SECRET if kinds != "CS" else SECRET.upper()
            dataset.add_new(tag, kinds, value if many == "1" or index else [value, value])
    dataset.add_new(0x00091001, "LO", SECRET)
    dataset.add_new(0x00090010, "LO", SECRET)
    other = Dataset()
    other.PatientName = SECRET
    dataset.OtherPatientIDsSequence = Sequence([other])
    dataset.Manufacturer = f"{SECRET} Medical"
    dataset.ConvolutionKernel = SECRET
    dataset.file_meta.SourceApplicationEntityTitle = SECRET
    for keyword in ("SeriesNumber", "AcquisitionNumber", "InstanceNumber"):
        setattr(dataset, keyword, 4711)


def test_no_header_value_and_no_name_travels(
    tmp_path: Path, hu: np.ndarray, write_series: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydicom

    monkeypatch.setattr(pydicom.config.settings, "_reading_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "_writing_validation_mode", pydicom.config.IGNORE)
    folder = tmp_path / f"archive {SECRET}" / f"{SECRET} 1950"
    write_series(folder, hu, patient=SECRET, change=plant)
    for path in folder.iterdir():
        path.rename(path.with_name(f"{SECRET}_{path.name}"))
    raw = next(folder.iterdir()).read_bytes()
    assert raw.count(SECRET.encode()) > 500
    assert raw.count(SECRET_NUMBER.encode()) > 100
    out = tmp_path / "out"
    source = open_source(folder.parent)
    assert write_source(source, out).num_written == 1
    written = content_of(out)
    assert len(written) > hu.size
    for secret in (
        SECRET,
        SECRET.upper(),
        SECRET.encode("utf-16-le"),
        SECRET_NUMBER,
        "1950",
        "4711",
        "20200102",
        "10.1.1",
    ):
        assert (secret if isinstance(secret, bytes) else secret.encode()) not in written, secret
    card = json.loads((out / "acquisition.json").read_text()) if (out / "acquisition.json").is_file() else {}
    assert set(card.get("S0001_01", {})) <= {"has_contrast_agent"}
    write_source(source, out, key=tmp_path / "key.csv")
    assert SECRET in (tmp_path / "key.csv").read_text()
    with pytest.raises(DatasetError, match=r"--key .*: expected a file outside the dataset folder"):
        write_source(source, out, key=out / "imagesTr" / ".." / "key.csv")


def test_acquisition_values_travel(tmp_path: Path, hu: np.ndarray, write_series: Write) -> None:
    def scanned(dataset: Any, index: int) -> None:
        dataset.Manufacturer, dataset.ConvolutionKernel = "GE MEDICAL SYSTEMS", "STANDARD"
        dataset.XRayTubeCurrent, dataset.CTDIvol, dataset.SpiralPitchFactor = "250", 7.25, 0.984
        dataset.ContrastBolusAgent = "Iopromide for Mrs Doe"

    write_series(tmp_path / "in", hu, change=scanned)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "acquisition.json").read_text()) == {
        "S0001_01": {
            "tube_voltage_kv": 120.0,
            "tube_current_ma": 250.0,
            "slice_thickness_mm": 2.5,
            "pitch": 0.984,
            "ctdi_vol_mgy": 7.25,
            "manufacturer": "GE",
            "kernel": "STANDARD",
            "has_contrast_agent": True,
        }
    }


def test_headers_of_nifti_files_and_their_names_stay_behind(tmp_path: Path, hu: np.ndarray) -> None:
    for folder, array in (("images", hu), ("labels", (hu > 0).astype(np.uint8))):
        (tmp_path / "in" / folder).mkdir(parents=True)
        image = nib.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0]))
        for field in ("descrip", "aux_file", "db_name", "intent_name"):
            image.header[field] = SECRET
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", SECRET.encode()))
        nib.save(image, tmp_path / "in" / folder / f"{SECRET}.nii.gz")
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    written = content_of(tmp_path / "out")
    assert SECRET.encode() not in written
    assert b"S0001_01_0000.nii.gz" in written
