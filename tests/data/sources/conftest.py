"""Made-up DICOM series, and the labels that belong to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPE = (14, 12, 7)  # columns, rows, slices
SPACING_MM = (0.8, 0.9, 2.5)  # between columns, rows, slices


def uid(*numbers: int) -> str:
    return ".".join(map(str, ("1.2.826.0.1.3680043.10.1", *numbers)))


@pytest.fixture
def hu() -> np.ndarray:
    """A ball of tissue in air, every voxel of a value of its own; column, row, slice."""
    generator = np.random.default_rng(3)
    inside = np.linalg.norm((np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2) / (5, 4, 3.2), axis=-1).T < 1
    return np.where(inside, generator.integers(-80, 900, SHAPE), generator.integers(-1020, -980, SHAPE)).astype(
        np.int16
    )


def write_ct(
    folder: Path,
    hu: np.ndarray,
    *,
    series: int = 1,
    patient: str = "P1",
    directions: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    step_mm: np.ndarray | None = None,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    origin_mm: tuple[float, float, float] = (-30.0, -42.0, -101.5),
    slope: float = 1.0,
    intercept: float = -1024.0,
    skip: tuple[int, ...] = (),
    change: Callable[[Any, int], None] = lambda dataset, index: None,
) -> list[Any]:
    """Write voxels as one DICOM file a slice and return the datasets, in order of position."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    row, column = np.array(directions[:3]), np.array(directions[3:])
    step = np.cross(row, column) * spacing_mm[2] if step_mm is None else step_mm
    datasets = []
    for index in range(hu.shape[2]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = uid(series, 3, index + 1)
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid(series, 3, index + 1)
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientID, dataset.PatientName = patient, "Doe^Jane"
        dataset.PatientBirthDate, dataset.PatientSex = "19500101", "F"
        dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = (
            "20200102",
            "101112",
            "",
            "",
        )
        dataset.ReferringPhysicianName = ""
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(series, 1), uid(series, 2)
        dataset.FrameOfReferenceUID = uid(series, 4)
        dataset.SeriesNumber, dataset.SeriesDescription = series, "Abdomen 2.5"
        dataset.InstanceNumber = hu.shape[2] - index
        dataset.ImagePositionPatient = [float(f"{value:.6f}") for value in np.array(origin_mm) + index * step]
        dataset.ImageOrientationPatient = [float(f"{value:.8f}") for value in directions]
        dataset.PixelSpacing = [spacing_mm[1], spacing_mm[0]]
        dataset.SliceThickness, dataset.KVP, dataset.Manufacturer = spacing_mm[2], 120, "SIEMENS"
        dataset.Rows, dataset.Columns = hu.shape[1], hu.shape[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        stored = np.rint((hu[:, :, index] - intercept) / slope).astype("<i2")
        dataset.PixelData = stored.T.tobytes()
        change(dataset, index)
        datasets.append(dataset)
        if index not in skip:
            dataset.save_as(folder / f"slice{index:03d}.dcm", enforce_file_format=True)
    return datasets


@pytest.fixture
def write_series() -> Callable[..., list[Any]]:
    """`write_ct`."""
    return write_ct


@pytest.fixture
def lps_affine() -> Callable[..., np.ndarray]:
    """The affine, RAS, of an axial series that `write_series` wrote as it does by default."""

    def affine(origin_mm: tuple[float, float, float] = (-30.0, -42.0, -101.5)) -> np.ndarray:
        lps = np.diag([*SPACING_MM, 1.0])
        lps[:3, 3] = origin_mm
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    return affine


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Any]:
    """Prepare a folder into `tmp_path / "out"`; the image and the label map of its first case as nibabel has them."""
    import nibabel as nib

    from promptlesion.data.sources import open_source, write_source

    def prepare(folder: Path, name: str = "S0001_01", **options: Any) -> tuple[Any, Any]:
        out = tmp_path / "out"
        write_source(open_source(folder, **options), out)
        return nib.load(out / "imagesTr" / f"{name}_0000.nii.gz"), nib.load(out / "labelsTr" / f"{name}.nii.gz")

    return prepare
