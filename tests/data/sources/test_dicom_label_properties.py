"""Any mask on any grid, encoded as SEG or RTSTRUCT, comes out as the same label map at the same place."""

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from pydicom.encaps import encapsulate
from scipy.spatial.transform import Rotation
from tests.data.sources.conftest import write_ct
from tests.data.sources.test_dicom_label_kinds import run_length, titled
from tests.data.sources.test_dicom_labels import write_rtstruct, write_seg

from promptlesion.data.sources import open_source

NAMES = ("печень", "Spleen", "肿瘤")
NATIVE = (
    pydicom.uid.ExplicitVRLittleEndian,
    pydicom.uid.ImplicitVRLittleEndian,
    pydicom.uid.DeflatedExplicitVRLittleEndian,
)


def grid(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """The shape, by column, row and slice, and the affine, LPS, of a scan in any orientation."""
    shape = tuple(draw(st.tuples(st.integers(5, 15), st.integers(5, 15), st.integers(3, 6))))
    angles = draw(st.tuples(*[st.one_of(st.sampled_from([0, 90, 180, 270]), st.integers(0, 359))] * 3))
    spacing = np.array(draw(st.tuples(st.integers(30, 200), st.integers(30, 200), st.integers(50, 500)))) / 100
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = draw(st.tuples(*[st.integers(-300, 300)] * 3))
    return np.array(shape), affine


def write_scan(folder: Path, shape: np.ndarray, affine: np.ndarray) -> list[Any]:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    hu = np.full(shape, 40, dtype=np.int16)
    hu[::2] = np.linspace(-1000, 900, hu[::2].size).reshape(hu[::2].shape)
    directions = (affine[:3, :2] / spacing[:2]).T.ravel()
    return write_ct(folder, hu, directions=tuple(directions), spacing_mm=tuple(spacing), origin_mm=tuple(affine[:3, 3]))


def read_labels(folder: Path) -> tuple[nib.Nifti1Image, dict[str, int]]:
    source = open_source(folder)
    assert not source.refusals
    (case,) = source.cases
    scan = case.read()
    return nib.Nifti1Image(scan.labels.array, scan.labels.affine), source.labels


def assert_same_place(found: nib.Nifti1Image, expected: np.ndarray, affine: np.ndarray) -> None:
    """Compare voxel by voxel at their places in the world, whatever the order of the axes."""
    indices = np.argwhere(np.ones(expected.shape, dtype=bool))
    to_found = np.linalg.inv(found.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    places = nib.affines.apply_affine(to_found, indices)
    np.testing.assert_allclose(places, np.rint(places), atol=1e-3)
    columns, rows, slices = np.rint(places).astype(int).T
    assert sorted(found.shape) == sorted(expected.shape)
    np.testing.assert_array_equal(np.asarray(found.dataobj)[columns, rows, slices], expected[tuple(indices.T)])


def reencode(path: Path, syntax: Any, order: np.ndarray) -> None:
    """Write a segmentation anew, its frames in another order and its pixels in another transfer syntax."""
    seg = pydicom.dcmread(path)
    frames = np.asarray(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)[order]
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    seg.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    if seg.BitsAllocated == 1:
        raw = [np.packbits(frames.ravel(), bitorder="little").tobytes()]
        raw = [np.packbits(one.ravel(), bitorder="little").tobytes() for one in frames] if syntax not in NATIVE else raw
    else:
        raw = [one.tobytes() for one in frames] if syntax not in NATIVE else [frames.tobytes()]
    is_native = syntax in NATIVE
    seg.PixelData = raw[0] + b"\0" * (len(raw[0]) % 2) if is_native else encapsulate([run_length(one) for one in raw])
    seg["PixelData"].VR, seg["PixelData"].is_undefined_length = "OB", not is_native
    seg.file_meta.TransferSyntaxUID = syntax
    is_implicit = syntax == pydicom.uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(path, seg, implicit_vr=is_implicit, little_endian=True)


@settings(max_examples=40, phases=[Phase.generate], deadline=None, derandomize=True, database=None)
@given(st.data())
def test_segmentations_come_out_as_they_went_in(data: st.DataObject) -> None:
    shape, affine = grid(data.draw)
    kind = data.draw(st.sampled_from(["BINARY", "FRACTIONAL", "LABELMAP"]))
    num_segments = data.draw(st.integers(1, 3))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = generator.choice(num_segments + 1, tuple(shape), p=[0.7, *[0.3 / num_segments] * num_segments])
    values[..., generator.random(shape[2]) < 0.4] = 0
    values[1, 2, 1] = 1
    with tempfile.TemporaryDirectory() as folder:
        datasets = write_scan(Path(folder), shape, affine)
        masks = {NAMES[index]: values == index + 1 for index in range(num_segments) if (values == index + 1).any()}
        write_seg(Path(folder) / "seg", datasets, {str(n): mask for n, mask in enumerate(masks.values())}, kind=kind)
        titled(Path(folder) / "seg", *(["Background"] if kind == "LABELMAP" else []), *masks)
        num_frames = len(pydicom.dcmread(Path(folder) / "seg").PerFrameFunctionalGroupsSequence)
        syntax = data.draw(st.sampled_from([*NATIVE, pydicom.uid.RLELossless]))
        reencode(Path(folder) / "seg", syntax, generator.permutation(num_frames))
        found, labels = read_labels(Path(folder))
    assert set(labels) == {"background", *masks}
    expected = np.zeros(tuple(shape), dtype=np.uint8)
    for name, mask in masks.items():
        expected[mask] = labels[name]
    assert_same_place(found, expected, affine)


def star(generator: np.random.Generator, middle: np.ndarray, radius: float) -> np.ndarray:
    """A closed contour without crossings, by columns and rows."""
    num_corners = generator.integers(4, 20)  # no gap of half a turn, so its middle lies inside
    angles = 2 * np.pi * (np.arange(num_corners) + generator.uniform(0, 0.9, num_corners)) / num_corners
    radii = radius * generator.uniform(0.75, 1, num_corners)[:, None]
    return np.asarray(middle + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def inside(corners_mm: np.ndarray, shape: np.ndarray, affine: np.ndarray) -> np.ndarray:
    outline = nib.affines.apply_affine(np.linalg.inv(affine), corners_mm)[:, :2]
    centres = np.argwhere(np.ones(tuple(shape[:2]), dtype=bool))
    return Outline(np.vstack([outline, outline[:1]])).contains_points(centres).reshape(tuple(shape[:2]))


@settings(max_examples=40, phases=[Phase.generate], deadline=None, derandomize=True, database=None)
@given(st.data())
def test_contours_come_out_as_another_rasteriser_fills_them(data: st.DataObject) -> None:
    shape, affine = grid(data.draw)
    is_xor = data.draw(st.booleans())
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    expected, contours = np.zeros(tuple(shape), dtype=np.uint8), []
    for index in np.flatnonzero(generator.random(shape[2]) < 0.7).tolist() or [1]:
        middle = generator.uniform(1, shape[:2] - 2)
        corners = star(generator, middle, generator.uniform(2.5, 9))
        outer, hole = (
            np.round(nib.affines.apply_affine(affine, np.insert(part, 2, index, axis=1)), 4)
            for part in (corners, middle + (corners - middle) * 0.4)  # similar, so inside
        )
        expected[:, :, index] = inside(outer, shape, affine)
        contours.append(outer)
        if data.draw(st.booleans()):
            expected[:, :, index] &= ~inside(hole, shape, affine)
            contours.append(hole)
        if not is_xor and data.draw(st.booleans()):  # once more, the other way round
            contours.append(outer[::-1])
    if not expected.any():
        return
    with tempfile.TemporaryDirectory() as folder:
        datasets = write_scan(Path(folder), shape, affine)
        order = generator.permutation(len(contours)).tolist()
        kind = "CLOSEDPLANAR_XOR" if is_xor else "CLOSED_PLANAR"
        write_rtstruct(Path(folder) / "rs", datasets, {"GTV": [contours[one] for one in order]}, kind=kind)
        found, labels = read_labels(Path(folder))
    assert labels == {"background": 0, "GTV": 1}
    assert_same_place(found, expected, affine)
