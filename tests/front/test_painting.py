"""A scan painted from Python: what changed lies where the lesion is said to, and images of any kind agree."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor

import promptlesion as pl
from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.volume import Volume, read_volume
from promptlesion.front.images import as_volume

if TYPE_CHECKING:
    from promptlesion.config import Config
    from promptlesion.front.model import Model


@pytest.fixture(scope="module")
def case(tiny_data: Dataset) -> tuple[Volume, Volume]:
    """A case whose lesions are gone: there is room everywhere."""
    image, labels = read_case(tiny_data, tiny_data.cases[0])
    return image, labels.with_array(np.minimum(labels.array, 1))


NAMES = {"organ": 1}


def in_kind(volume: Volume, kind: str) -> Any:
    """The same voxels at the same places, stored with the axes turned and mirrored."""
    array, affine = volume.array[::-1].transpose(2, 0, 1), volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (len(volume.array) - 1)
    affine[:3, :3] = np.stack([affine[:3, 2], -affine[:3, 0], affine[:3, 1]], axis=1)
    array = np.ascontiguousarray(array)
    if kind == "pair":
        return array, affine
    if kind == "nibabel":
        return nib.Nifti1Image(array, affine)
    if kind == "MONAI":
        return MetaTensor(torch.from_numpy(array)[None].float(), affine=torch.from_numpy(affine))
    image = SimpleITK.GetImageFromArray(array.T)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetMetaData("0008|0060", "CT")
    return image


@pytest.mark.parametrize("kind", ["pair", "nibabel", "SimpleITK", "MONAI"])
def test_an_image_of_any_kind_comes_back_as_one_painted_alike(
    model: "Model", case: tuple[Volume, Volume], kind: str
) -> None:
    scan, labels = case
    expected = pl.paint(model, scan, labels, "bright", mask=_ball(scan), label_names=NAMES)
    given = in_kind(scan, kind), in_kind(labels, kind)
    mask = in_kind(scan.with_array(_ball(scan).astype(np.uint8)), kind)
    painted = pl.paint(model, *given, "bright", mask=mask, label_names=NAMES)
    for found, before, wanted in zip(
        (painted.image, painted.labels), given, (expected.image, expected.labels), strict=True
    ):
        assert type(found) is type(before)
        assert as_volume(found, "found").array.dtype == as_volume(before, "before").array.dtype
        np.testing.assert_allclose(as_volume(found, "found").affine, wanted.affine, atol=1e-5)
        # whole HU are rounded as they are written into the scan, those of a MetaTensor of floats are not
        np.testing.assert_array_equal(np.rint(as_volume(found, "found").array), wanted.array)
    (own,), (other,) = painted.lesions, expected.lesions
    assert (own.center_mm, own.diameter_mm) == (other.center_mm, other.diameter_mm)
    assert own.mean_hu == pytest.approx(other.mean_hu, abs=0.3)
    if kind == "MONAI":
        assert painted.image.shape == given[0].shape and torch.equal(painted.image.affine, given[0].affine)
    if kind == "SimpleITK":
        assert painted.image.GetDirection() == given[0].GetDirection()
        assert painted.image.GetMetaData("0008|0060") == "CT"


def test_what_went_in_stays_and_beyond_the_edge_nothing_changes(model: "Model", case: tuple[Volume, Volume]) -> None:
    scan, labels = case
    before = scan.array.copy(), labels.array.copy()
    painted = pl.paint(model, scan, labels, {"bright": 1, "dark": 1}, label_names=NAMES, seed=3)
    assert (scan.array == before[0]).all() and (labels.array == before[1]).all()
    assert [lesion.type for lesion in painted.lesions] == ["bright", "dark"]
    assert set(np.unique(painted.labels.array)) == {0, 1, 2, 3}
    is_new = painted.labels.array > 1
    changed = np.argwhere(painted.image.array != scan.array) * scan.spacing_mm
    away = np.linalg.norm(changed[:, None] - np.argwhere(is_new)[None] * scan.spacing_mm, axis=-1).min(axis=1)
    assert 0 < away.max() <= model.synthesizer.card.edge_mm
    for index, lesion in enumerate(painted.lesions):
        inside = painted.labels.array == 2 + index
        assert lesion.mean_hu == pytest.approx(painted.image.array[inside].mean(), abs=0.06)
        center = scan.affine[:3, :3] @ np.argwhere(inside).mean(axis=0) + scan.affine[:3, 3]
        np.testing.assert_allclose(lesion.center_mm, center, atol=1)
        assert lesion.is_accepted
    again = pl.paint(model, scan, labels, {"dark": 1, "bright": 1}, label_names=NAMES, seed=3)
    assert (again.image.array == painted.image.array).all()
    other = pl.paint(model, scan, labels, {"dark": 1, "bright": 1}, label_names=NAMES, seed=4)
    assert (other.labels.array != painted.labels.array).any()


def test_around_a_point(model: "Model", case: tuple[Volume, Volume]) -> None:
    scan, labels = case
    wanted = scan.affine[:3, :3] @ (15, 13, 17) + scan.affine[:3, 3]
    (lesion,) = pl.paint(model, scan, labels, "dark", center_mm=tuple(wanted.tolist()), label_names=NAMES).lesions
    assert np.linalg.norm(np.array(lesion.center_mm) - wanted) < 2
    outside = scan.affine[:3, :3] @ (1, 1, 1) + scan.affine[:3, 3]
    with pytest.raises(ValueError, match=r"dark: expected a voxel of its host \(organ\) at \(1, 1, 1\)"):
        pl.paint(model, scan, labels, "dark", center_mm=tuple(outside.tolist()), label_names=NAMES)
    with pytest.raises(ValueError, match="center_mm: expected a point in the scan"):
        pl.paint(model, scan, labels, "dark", center_mm=(1e4, 0.0, 0.0), label_names=NAMES)


def test_into_a_mask(model: "Model", case: tuple[Volume, Volume]) -> None:
    scan, labels = case
    mask = _ball(scan)
    painted = pl.paint(model, scan, labels, "dark", mask=mask, label_names=NAMES)
    np.testing.assert_array_equal(painted.labels.array == 3, mask)
    assert painted.lesions[0].mask_origin == "given"
    again = [scan, painted.labels, "bright"]
    with pytest.raises(ValueError, match="expected a mask off the lesions there are"):
        pl.paint(model, *again, mask=mask, label_names=NAMES)
    for wrong, said in (
        (np.zeros_like(mask), "an empty one"),
        (np.ones_like(mask), "of at most 18.0 mm along"),
    ):
        with pytest.raises(ValueError, match=said):
            pl.paint(model, scan, labels, "dark", mask=wrong, label_names=NAMES)


def test_what_is_not_accepted_is_in_neither_and_said(
    model: "Model", case: tuple[Volume, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    scan, labels = case
    strict = replace(model, config=model.config.model_copy(update={"accept_all": False, "max_attempts": 2}))
    painted = pl.paint(strict, scan, labels, "bright", label_names=NAMES)
    (lesion,) = painted.lesions
    assert not lesion.is_accepted and lesion.attempts == 2 and len(lesion.rejections) == 2
    assert (painted.image.array == scan.array).all() and (painted.labels.array == labels.array).all()
    assert "is left out: mean" in caplog.text


def test_files_know_their_labels_and_are_written_as_they_came(
    model: "Model", tiny_data: Dataset, tmp_path: Path
) -> None:
    one = tiny_data.cases[1]
    scan, labels = pl.read_scan(str(one.image_path)), pl.read_labels(one.label_path)
    assert labels.names == tiny_data.labels
    painted = pl.paint(model, scan, labels, {"bright": 1}, center_mm=None, seed=11)
    painted.save(tmp_path / "out")
    assert (read_volume(tmp_path / "out" / "image.nii.gz").array == painted.image.array).all()
    written = read_volume(tmp_path / "out" / "labels.nii.gz")
    assert (written.array == painted.labels.array).all() and written.array.dtype == np.uint8
    np.testing.assert_array_equal(written.affine, scan.affine)
    told = json.loads((tmp_path / "out" / "lesions.json").read_text(encoding="utf-8"))["lesions"]
    assert [lesion["center_mm"] for lesion in told] == [lesion.center_mm for lesion in painted.lesions]
    alone = tmp_path / "labels.nii.gz"
    alone.write_bytes(one.label_path.read_bytes())
    with pytest.raises(ValueError, match="label_names: expected the values of organ by name"):
        pl.paint(model, scan, pl.read_labels(alone), "bright")
    assert pl.read_labels(alone, names=NAMES).names == NAMES


def test_labels_of_a_dataset_numbered_otherwise(model: "Model", case: tuple[Volume, Volume]) -> None:
    scan, labels = case
    other = labels.with_array(labels.array * np.uint8(5))
    painted = pl.paint(model, scan, other, "bright", label_names={"organ": 5, "bright": 1})
    assert set(np.unique(painted.labels.array)) == {0, 1, 5}
    with pytest.raises(ValueError, match="expected a value for bright, as 2, which it had in training, is organ"):
        pl.paint(model, scan, labels.with_array(labels.array * np.uint8(2)), "bright", label_names={"organ": 2})
    with pytest.raises(ValueError, match="label_names: expected organ, where bright lies"):
        pl.paint(model, scan, labels, "bright", label_names={"liver": 1})


def test_real_shapes_come_from_masks_that_are_named(
    model: "Model", tiny_data: Dataset, case: tuple[Volume, Volume]
) -> None:
    scan, labels = case
    trained: Any = model.synthesizer
    types = tuple(lesion.model_copy(update={"shape": "real"}) for lesion in trained.card.spec.lesions)
    spec = trained.card.spec.model_copy(update={"lesions": types})
    real = replace(model, synthesizer=replace(trained, card=replace(trained.card, spec=spec)))
    with pytest.raises(ValueError, match=r"shapes: expected masks that dark takes its shape from, as in dark=FOLDER"):
        pl.paint(real, scan, labels, "dark", label_names=NAMES)
    shapes = [f"dark={tiny_data.root / 'labelsTr'}:3"]
    (lesion,) = pl.paint(real, scan, labels, "dark", shapes=shapes, label_names=NAMES).lesions
    assert lesion.mask_origin.startswith("real")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scan": np.zeros((4, 4, 4))}, r"scan: expected .* found ndarray; an array comes with its affine"),
        (
            {"scan": (np.zeros((4, 4)), np.eye(4))},
            r"scan: expected .* three axes, found the shape \(4, 4\)",
        ),
        ({"scan": (np.zeros((4, 4, 4)), np.zeros((4, 4)))}, "scan: expected a finite, invertible affine"),
        ({"scan": (np.full((9, 9, 9), 100), np.eye(4))}, "scan: expected the HU of a CT"),
        ({"labels": (np.zeros((4, 4, 4), np.uint8), np.eye(4))}, "labels: label s.* differs from the scan's"),
        ({"lesions": {"green": 1}}, "lesions: expected numbers of bright, dark; found 'green': 1"),
        ({"lesions": {"bright": 0}}, "lesions: expected at least one of bright, dark"),
        ({"lesions": {"bright": 2}, "center_mm": (15.0, 13.0, 25.0)}, "of them, with one lesion; found 2"),
        (
            {"label_names": {"organ": 3, "dark": 1}},
            "bright: expected voxels of its host",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    model: "Model", case: tuple[Volume, Volume], change: dict[str, Any], said: str
) -> None:
    given = {"scan": case[0], "labels": case[1], "lesions": "bright", "label_names": NAMES, **change}
    with pytest.raises(ValueError, match=said):
        pl.paint(model, **given)


def test_every_method_paints_and_pasted_lesions_keep_their_shape(
    tiny_data: Dataset, case: tuple[Volume, Volume], keep_all: "Config", tmp_path: Path
) -> None:
    pl.train("diffusion", tiny_data.root, tmp_path / "copy-paste", method="copy-paste", config=keep_all, device="cpu")
    pasting = pl.load_model(tmp_path / "copy-paste", config=keep_all, device="cpu")
    scan, labels = case
    painted = pl.paint(pasting, scan, labels, {"bright": 1}, label_names=NAMES)
    assert painted.lesions[0].mask_origin.startswith("pasted real")
    with pytest.raises(ValueError, match="mask: expected none for copy-paste"):
        pl.paint(pasting, scan, labels, "bright", mask=_ball(scan), label_names=NAMES)


def _ball(scan: Volume) -> np.ndarray:
    offsets = (np.indices(scan.shape).T - (14, 12, 16)) * scan.spacing_mm
    return (np.linalg.norm(offsets, axis=-1).T <= 3.5).astype(bool)


def test_attributes_take_a_model_that_knows_them(model: "Model", case: tuple[Volume, Volume]) -> None:
    with pytest.raises(ValueError, match=r"expected a model that was trained with diffusion\.attributes = true"):
        pl.paint(model, *case, "bright", label_names=NAMES, attributes={"bright": {"mean_hu": 500}})
    with pytest.raises(ValueError, match="expected a lesion type of bright, dark; found 'calcium'"):
        pl.paint(model, *case, "bright", label_names=NAMES, attributes={"calcium": {"diameter_mm": 5}})
    painted = pl.paint(model, *case, "bright", label_names=NAMES, attributes={"bright": {"diameter_mm": (5.0, 5.5)}})
    (lesion,) = painted.lesions
    assert 4.5 < lesion.diameter_mm < 6.0
    assert lesion.asked == {}
    assert lesion.painted["mean_hu"] == pytest.approx(lesion.mean_hu, abs=0.1)
