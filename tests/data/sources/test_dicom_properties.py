"""Any series in, the same world out: against what was written, pydicom's own reading, and SimpleITK's series reader."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.data.sources.conftest import write_ct
from tests.data.sources.test_dicom_damage import compressed

from promptlesion.data.sources import open_source, write_source

PLAIN = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian")
BY_PYDICOM = ("RLELossless", "JPEGLSLossless")
BY_GDCM = ("JPEG2000Lossless", "JPEGLosslessProcess14_1")


@dataclass(frozen=True)
class Written:
    """How a series is written: its grid, how its values are stored, and in which order its files are called."""

    shape: tuple[int, int, int]
    turn: tuple[int, int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    is_signed: bool
    num_bits: int
    has_spare_bits_set: bool
    slope: float
    intercept: float
    syntax: str
    names: tuple[int, ...]
    seed: int

    @property
    def directions(self) -> tuple[float, ...]:
        """A row and a column at right angles: those of the rotation by the quaternion `turn`."""
        w, x, y, z = np.array(self.turn) / np.linalg.norm(self.turn)
        row = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
        return (*row, 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))

    @property
    def stored(self) -> np.ndarray:
        """Values of air to bone, as far as the bits reach; column, row, slice."""
        low, high = (
            (-(1 << self.num_bits - 1), (1 << self.num_bits - 1) - 1)
            if self.is_signed
            else (0, (1 << self.num_bits) - 1)
        )
        first, last = ((hu - self.intercept) / self.slope for hu in (-1030, 1900))
        generator = np.random.default_rng(self.seed)
        columns, rows, slices = self.shape
        if self.syntax in BY_GDCM:  # whose encoders need even sizes
            columns, rows = columns + columns % 2, rows + rows % 2
        return generator.integers(max(low, int(first)), min(high, int(last)), (columns, rows, slices), endpoint=True)

    def change(self, dataset: Any, index: int) -> None:
        """What `write_ct` is to write otherwise."""
        import pydicom.uid

        values = self.stored[:, :, index].T
        if not self.has_spare_bits_set:
            values = values & ((1 << self.num_bits) - 1)
        is_big = self.syntax == "ExplicitVRBigEndian"
        dataset.PixelData = (values & 0xFFFF).astype(">u2" if is_big else "<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.BitsStored, dataset.HighBit = self.num_bits, self.num_bits - 1
        dataset.PixelRepresentation = int(self.is_signed)
        if self.syntax in PLAIN:
            dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, self.syntax)
        if self.syntax in BY_PYDICOM:
            dataset.compress(getattr(pydicom.uid, self.syntax), generate_instance_uid=False)


def numbers(*values: Any, count: int = 3) -> st.SearchStrategy[Any]:
    return st.tuples(*(st.sampled_from(values) for _ in range(count)))


SERIES = st.builds(
    Written,
    shape=st.tuples(st.integers(8, 13), st.integers(8, 13), st.integers(3, 6)),
    turn=st.tuples(*(st.integers(-3, 3) for _ in range(4))).filter(any),
    spacing_mm=numbers(0.35, 0.5, 0.9765625, 1.25, 5.0),
    origin_mm=st.tuples(*(st.integers(-5000, 5000).map(lambda tenth: tenth / 10) for _ in range(3))),
    is_signed=st.booleans(),
    num_bits=st.sampled_from((12, 13, 16)),
    has_spare_bits_set=st.booleans(),
    slope=st.sampled_from((1.0, 2.0, 0.5, 1.25)),
    intercept=st.sampled_from((-1024.0, -1000.0, -1200.5)),
    syntax=st.sampled_from((*PLAIN, *BY_PYDICOM, *BY_GDCM)),
    names=st.permutations(range(6)).map(tuple),
    seed=st.integers(0, 99),
)


def write(series: Written, folder: Path) -> list[Path]:
    """Write the series under names in its own order; the files, from the lowest slice to the highest."""
    write_ct(
        folder / "plain",
        series.stored,
        directions=series.directions,
        spacing_mm=series.spacing_mm,
        origin_mm=series.origin_mm,
        slope=series.slope,
        intercept=series.intercept,
        change=series.change,
    )
    if series.syntax in BY_GDCM:
        compressed(folder / "plain", folder / "in", series.syntax)
    else:
        (folder / "plain").rename(folder / "in")
    files = sorted((folder / "in").iterdir())
    return [path.rename(path.with_name(f"IM{series.names[index]}")) for index, path in enumerate(files)]


def assert_as_pydicom(image: Any, files: list[Path]) -> None:
    """Every pixel, at its place by the header's own equation (PS3.3 C.7.6.2.1-1), has its value in the volume."""
    import pydicom
    from pydicom.pixels import apply_rescale

    voxels, to_voxels = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    for path in files:
        dataset = pydicom.dcmread(path)
        row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        rows, columns = np.indices((dataset.Rows, dataset.Columns)).reshape(2, -1)
        steps = np.outer(columns * float(dataset.PixelSpacing[1]), row)
        steps += np.outer(rows * float(dataset.PixelSpacing[0]), column)
        lps = np.array(dataset.ImagePositionPatient, dtype=float) + steps
        found = (lps * (-1, -1, 1)) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        assert np.abs(found - np.rint(found)).max() < 0.01
        values = voxels[tuple(np.rint(found).astype(int).T)]
        assert np.allclose(values, apply_rescale(dataset.pixel_array, dataset).ravel(), rtol=0, atol=1e-3)


def assert_as_simple_itk(image: Any, files: list[Path]) -> None:
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])  # its own sorter aborts the process on some grids
    expected = reader.Execute()
    assert np.allclose(np.asarray(image.dataobj), SimpleITK.GetArrayFromImage(expected).T, rtol=0, atol=1e-3)
    affine = np.eye(4)
    affine[:3, :3] = np.array(expected.GetDirection()).reshape(3, 3) * expected.GetSpacing()
    affine[:3, 3] = expected.GetOrigin()
    assert np.allclose(image.affine, np.diag([-1, -1, 1, 1]) @ affine, atol=1e-3)


@settings(max_examples=60, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
@given(series=SERIES)
def test_any_series_is_the_same_world(series: Written) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write(series, folder)
        write_source(open_source(folder / "in"), folder / "out")
        image = nib.load(folder / "out" / "imagesTr" / "S0001_01_0000.nii.gz")
        hu = series.stored * series.slope + series.intercept
        assert np.allclose(np.asarray(image.dataobj), hu, rtol=0, atol=1e-3)
        assert_as_pydicom(image, files)
        if series.syntax != "RLELossless":  # ITK reads none with an odd number of pixels
            assert_as_simple_itk(image, files)
