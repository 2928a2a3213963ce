"""A case on its own: what is measured is right, and every way to be wrong has its word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.check.conftest import AFFINE, SHAPE, SPACING_MM, body

from promptlesion.check.case import examine_case
from promptlesion.check.facts import CaseFacts, CaseFiles
from promptlesion.data.volume import Volume

Files = Callable[..., CaseFiles]


def codes(facts: CaseFacts) -> list[str]:
    return [finding.code for finding in facts.findings]


def test_a_right_case_is_measured_and_has_no_findings(files: Files) -> None:
    image, labels = body()
    facts = examine_case(files())
    assert codes(facts) == []
    assert (facts.shape, facts.spacing_mm, facts.axis_codes, facts.stored_type) == (SHAPE, SPACING_MM, "RAS", "int16")
    voxel_ml = np.prod(SPACING_MM) / 1000
    for value, found in facts.labels.items():
        inside = labels.array == value
        assert found.num_voxels == inside.sum()
        assert found.volume_ml == pytest.approx(inside.sum() * voxel_ml)
        assert found.mean_hu == pytest.approx(image.array[inside].mean())
    assert facts.labels[1].place[0] > 0 > facts.labels[2].place[0]  # liver right, spleen left
    (lesion,) = facts.lesions
    mask = labels.array == 3
    center = np.array(ndimage.center_of_mass(mask)) * SPACING_MM
    assert np.linalg.norm(np.array(lesion.center_mm) - center) < 2
    assert lesion.diameter_mm == pytest.approx(18, rel=0.05)
    assert lesion.mean_hu == pytest.approx(image.array[mask].mean())
    assert set(facts.neighbours[3]) == {1}  # the tumour lies inside the liver


def test_pictures_have_the_bodys_proportions(files: Files) -> None:
    facts = examine_case(files())
    size = dict(zip("xyz", (n * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)), strict=True))
    for picture, (across, up) in zip(facts.thumbnails, ("xy", "xz", "yz"), strict=True):
        assert picture.width / picture.height == pytest.approx(size[across] / size[up], rel=0.02)
        assert picture.jpeg.startswith(b"\xff\xd8")


@pytest.mark.parametrize("kind", ["image", "labels"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_missing_or_truncated_file_is_named(files: Files, kind: str, is_there: bool) -> None:
    written = files()
    path = written.image_path if kind == "image" else written.label_path
    path.write_bytes(path.read_bytes()[:200]) if is_there else path.unlink()
    facts = examine_case(written)
    assert codes(facts) == ["unreadable" if is_there else f"missing-{kind}"]
    assert str(path) in facts.findings[0].message
    assert bool(facts.thumbnails) == (kind == "labels")


def changed(what: str) -> tuple[Volume, Volume]:
    image, labels = body()
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    return {
        "scaled": (image.with_array(((image.array + 1024) / 4000).astype(np.float32)), labels),
        "8 bit": (image.with_array(((image.array + 1024) // 16).clip(0, 255).astype(np.uint8)), labels),
        "no intercept": (image.with_array((image.array + 1024).astype(np.int16)), labels),
        "nan": (image.with_array(np.where(image.array > 650, np.nan, image.array).astype(np.float32)), labels),
        "all nan": (image.with_array(np.full(SHAPE, np.nan, dtype=np.float32)), labels),
        "constant": (image.with_array(np.zeros(SHAPE, dtype=np.int16)), labels),
        "unknown label": (image, labels.with_array(np.where(labels.array == 2, 9, labels.array).astype(np.uint8))),
        "negative label": (image, labels.with_array(np.where(labels.array == 2, -3, labels.array).astype(np.int16))),
        "empty": (image, labels.with_array(np.zeros_like(labels.array))),
        "shorter": (image, Volume(labels.array[:-1], AFFINE)),
        "elsewhere": (image, Volume(labels.array, AFFINE + np.array([[0, 0, 0, 5.0]] + [[0] * 4] * 3))),
        "flipped labels": (image, labels.with_array(np.ascontiguousarray(labels.array[::-1]))),
        "sheared": (Volume(image.array, sheared), Volume(labels.array, sheared)),
        "oblique": (Volume(image.array, turned @ AFFINE), Volume(labels.array, turned @ AFFINE)),
        "metres": tuple(Volume(v.array, np.diag([0.002, 0.0025, 0.003, 1.0])) for v in (image, labels)),
        "thick": tuple(Volume(v.array, np.diag([0.5, 0.5, 6.0, 1.0])) for v in (image, labels)),
        "wide": (image.with_array(image.array.astype(np.float64)), labels),
    }[what]


@pytest.mark.parametrize(
    ("what", "code", "severity"),
    [
        ("scaled", "not-hounsfield", "error"),
        ("8 bit", "not-hounsfield", "error"),
        ("no intercept", "not-hounsfield", "error"),
        ("constant", "not-hounsfield", "error"),
        ("nan", "not-finite", "error"),
        ("all nan", "not-finite", "error"),
        ("unknown label", "unknown-labels", "error"),
        ("negative label", "unknown-labels", "error"),
        ("empty", "empty-labels", "warning"),
        ("shorter", "label-grid", "error"),
        ("elsewhere", "label-grid", "error"),
        ("flipped labels", "flipped-labels", "error"),
        ("sheared", "sheared", "warning"),
        ("oblique", "oblique", "note"),
        ("metres", "spacing", "error"),
        ("thick", "anisotropic", "warning"),
        ("wide", "wide-type", "note"),
    ],
)
def test_what_is_wrong_has_a_word_and_names_the_case(files: Files, what: str, code: str, severity: str) -> None:
    image, labels = changed(what)
    facts = examine_case(files("case_017", image, labels))
    found = {finding.code: finding for finding in facts.findings}
    assert code in found
    assert found[code].severity == severity
    assert found[code].message.startswith("case_017: ")
    assert severity == "note" or found[code].remedy
    assert len(facts.thumbnails) == 3


@pytest.mark.parametrize(
    ("shape", "code"), [((48, 40), "not-3d"), ((48, 40, 3, 2), "not-3d"), ((48, 40, 32), "no-affine")]
)
def test_a_file_of_other_dimensions_or_without_an_affine(files: Files, shape: tuple[int, ...], code: str) -> None:
    written = files()
    affine = np.diag([2.0, 0.0, 1.0, 1.0]) if code == "no-affine" else np.eye(4)
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_sform(affine, code=1)
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.int16), None, header), written.image_path)
    assert code in codes(examine_case(written))


@pytest.mark.parametrize(("qform_code", "sform_code"), [(0, 0), (1, 1)])
def test_a_guessed_and_an_ambiguous_affine(files: Files, qform_code: int, sform_code: int) -> None:
    written = files()
    image = nib.load(written.image_path)
    other = AFFINE.copy()
    other[0, 3] = 50
    image = nib.Nifti1Image(np.asarray(image.dataobj), AFFINE)
    image.set_sform(AFFINE, code=sform_code)
    image.set_qform(other if qform_code else AFFINE, code=qform_code)
    nib.save(image, written.image_path)
    nib.save(nib.Nifti1Image(body()[1].array, nib.load(written.image_path).affine), written.label_path)
    assert ("two-affines" if qform_code else "no-affine") in codes(examine_case(written))


def test_hashes_know_the_same_scan_in_other_clothes(files: Files, tmp_path: Path) -> None:
    image, _ = body()
    first = examine_case(files())
    as_float = examine_case(files("float", image.with_array(image.array.astype(np.float32))))
    assert (as_float.voxel_hash, as_float.content_hash) == (first.voxel_hash, first.content_hash)
    path = files("stored").image_path  # stored in another order, the affine telling so
    stored = nib.Nifti1Image(image.array, AFFINE).as_reoriented(np.array([[1, -1], [0, 1], [2, -1]]))
    nib.save(stored, path)
    turned = examine_case(replace(files("other"), image_path=path))
    assert turned.voxel_hash == first.voxel_hash
    assert turned.axis_codes != "RAS"
    mirrored = examine_case(files("mirrored", image.with_array(np.ascontiguousarray(image.array[:, ::-1]))))
    assert mirrored.voxel_hash != first.voxel_hash
    assert mirrored.content_hash == first.content_hash
    touched = image.array.copy()
    touched[3, 4, 5] += 1
    other = examine_case(files("touched", image.with_array(touched)))
    assert first.content_hash not in (other.content_hash, other.voxel_hash)
