"""Real shapes: read from anywhere, turned about all axes, and as large as asked for."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, open_dataset, write_case, write_dataset_json, write_spec
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume, write_volume
from promptlesion.masks import shape_bank
from promptlesion.masks.real_shape import draw_real_shape
from promptlesion.masks.shape_bank import ShapeBank, ShapeSource, cut_bank, parse_shapes, read_bank

NUM_DRAWS = 200


def screw() -> np.ndarray:
    """A solid without a mirror plane: a bar with an arm to one side and another one up, all of other lengths."""
    mask = np.zeros((20, 12, 10), dtype=np.uint8)
    mask[2:18, 2:5, 2:5] = 1
    mask[2:5, 2:11, 2:5] = 1
    mask[14:18, 2:5, 2:9] = 1
    return mask


@pytest.fixture
def bank(tmp_path: Path) -> ShapeBank:
    np.savez(tmp_path / "screw.npz", only=screw())
    return read_bank(ShapeSource(tmp_path / "screw.npz"))


def points(half_width: float, step: float) -> np.ndarray:
    axis = np.arange(-half_width, half_width + step / 2, step)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def drawn(bank: ShapeBank, seed: int, *, diameter_mm: float, deformation: float = 0.0, step: float = 0.5) -> np.ndarray:
    """The positions inside the surface of a drawn shape."""
    shape, origin = draw_real_shape(
        bank, diameter_mm=diameter_mm, deformation=deformation, generator=np.random.default_rng(seed)
    )
    assert origin == "real: only"
    offsets = points(2.5 * diameter_mm, step)
    ratio = shape.radius_ratio(offsets, radius_mm=diameter_mm / 2)
    assert ratio[tuple(n // 2 for n in ratio.shape)] < 1
    return offsets[ratio < 1]


@pytest.mark.parametrize(("deformation", "tolerance"), [(0.0, 0.15), (0.25, 0.25)])
def test_a_shape_has_the_volume_of_the_asked_for_sphere_on_average(
    bank: ShapeBank, deformation: float, tolerance: float
) -> None:
    """What a deformation takes or adds, and what the edges of this one lose, growth into the host makes up for."""
    for diameter_mm in (6.0, 11.0):
        step = diameter_mm / 10
        counts = [
            len(drawn(bank, seed, diameter_mm=diameter_mm, deformation=deformation, step=step)) for seed in range(8)
        ]
        assert np.mean(counts) * step**3 == pytest.approx(np.pi / 6 * diameter_mm**3, rel=tolerance)


def test_shapes_are_turned_about_all_axes_and_mirrored(bank: ShapeBank) -> None:
    """The bar's direction has no preferred axis; the arms make a left-handed and a right-handed frame alike."""
    directions, hands = [], []
    for seed in range(NUM_DRAWS):
        shape, _ = draw_real_shape(bank, diameter_mm=6.0, deformation=0.0, generator=np.random.default_rng(seed))
        matrix = shape.deformation.rotation
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        directions.append(matrix[:, 0])
        hands.append(np.sign(np.linalg.det(matrix)))
    np.testing.assert_allclose(np.cov(np.array(directions).T, bias=True), np.eye(3) / 3, atol=0.08)
    assert abs(np.mean(hands)) < 0.25


def test_the_turned_mask_is_the_mask_turned(bank: ShapeBank) -> None:
    """Brought back by its own rotation, a drawn shape covers the mask it came from."""
    mask = np.pad(bank.shapes[0].mask, 3)
    index = np.stack(np.indices(mask.shape), axis=-1)
    for seed in range(3):
        shape, _ = draw_real_shape(bank, diameter_mm=10.0, deformation=0.0, generator=np.random.default_rng(seed))
        scale = 10.0 / shape.own_diameter_mm
        plain_mm = (index - shape.origin_voxel) * scale * shape.deformation.axis_ratios
        inside = shape.radius_ratio(plain_mm @ shape.deformation.rotation.T, radius_mm=5.0) < 1
        assert 2 * (inside & mask).sum() / (inside.sum() + mask.sum()) > 0.9


def test_a_generator_gives_the_same_shape_again(bank: ShapeBank) -> None:
    first, again, other = (drawn(bank, seed, diameter_mm=6.0, deformation=0.25) for seed in (4, 4, 5))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_it_grows_outwards_beyond_its_own_grid(bank: ShapeBank) -> None:
    shape, _ = draw_real_shape(bank, diameter_mm=6.0, deformation=0.25, generator=np.random.default_rng(1))
    rays = np.linspace(0, 40, 60)[:, None] * np.array([0.36, 0.48, 0.8])
    far = shape.radius_ratio(rays, radius_mm=3.0)[20:]
    assert (np.diff(far) > 0).all()
    assert far[-1] > 8


def test_shapes_near_in_size_are_drawn(tmp_path: Path) -> None:
    np.savez(tmp_path / "cubes.npz", **{f"side_{n}": np.ones((n, n, n), dtype=bool) for n in range(4, 44)})
    bank = read_bank(ShapeSource(tmp_path / "cubes.npz"))
    diameters = [shape.diameter_mm for shape in bank.shapes]
    assert diameters == sorted(diameters)
    generator = np.random.default_rng(0)
    origins = {draw_real_shape(bank, diameter_mm=10.0, deformation=0.0, generator=generator)[1] for _ in range(100)}
    sides = sorted(int(origin.removeprefix("real: side_")) for origin in origins)
    assert len(sides) == 10
    assert sides[0] <= 8 <= sides[-1] < 16


def test_millimetres_count_not_voxels(tmp_path: Path) -> None:
    spacing = (0.5, 1.0, 3.0)
    np.savez(tmp_path / "flat.npz", flat=np.ones((12, 6, 4), dtype=np.uint8), spacing_mm=np.array(spacing))
    (shape,) = read_bank(ShapeSource(tmp_path / "flat.npz")).shapes
    assert shape.spacing_mm == spacing
    assert shape.diameter_mm == pytest.approx((6 / np.pi * 6 * 6 * 12) ** (1 / 3))
    write_volume(Volume(np.ones((12, 6, 4), dtype=np.uint8), np.diag([*spacing, 1.0])), tmp_path / "flat.nii.gz")
    (from_file,) = read_bank(ShapeSource(tmp_path)).shapes
    assert (from_file.case, from_file.bits, from_file.diameter_mm) == ("flat", shape.bits, shape.diameter_mm)


def test_every_lesion_of_a_mask_is_a_shape_of_the_asked_for_value(tmp_path: Path) -> None:
    mask = np.zeros((20, 20, 20), dtype=np.uint8)
    mask[1:5, 1:5, 1:5], mask[10:16, 10:16, 10:16], mask[1:4, 10:14, 10:14] = 2, 2, 1
    mask[18, 18, 18] = 2  # a speck has no shape
    np.savez(tmp_path / "two.npz", case=mask)
    assert [round(shape.mask.sum()) for shape in read_bank(ShapeSource(tmp_path / "two.npz", 2)).shapes] == [64, 216]
    assert [round(shape.mask.sum()) for shape in read_bank(ShapeSource(tmp_path / "two.npz", 1)).shapes] == [48]


def test_a_bank_is_small_whatever_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_bank, "_MOST_SHAPES", 5)
    x, y, z = np.indices((150, 140, 40)) - np.array([75, 70, 20])[:, None, None, None]
    large = (x / 70) ** 2 + (y / 65) ** 2 + (z / 18) ** 2 < 1
    np.savez(tmp_path / "many.npz", large=large, **{f"cube_{n}": np.ones((5, 5, 5 + n)) for n in range(9)})
    bank = read_bank(ShapeSource(tmp_path / "many.npz"))
    assert len(bank.shapes) == 5
    monkeypatch.setattr(shape_bank, "_MOST_SHAPES", 300)
    whole = read_bank(ShapeSource(tmp_path / "many.npz"))
    assert max(whole.shapes[-1].shape) == 64
    assert whole.shapes[-1].diameter_mm == pytest.approx((6 / np.pi * large.sum()) ** (1 / 3), rel=0.01)
    copied = pickle.loads(pickle.dumps(whole))
    assert copied == whole
    assert copied.fingerprint == whole.fingerprint != bank.fingerprint
    assert len(pickle.dumps(whole)) < 50_000


class TestCutFromADataset:
    @pytest.fixture
    def dataset(self, tmp_path: Path, tiny_spec: DatasetSpec) -> Dataset:
        labels = np.ones((30, 26, 20), dtype=np.uint8)
        labels[5:10, 5:10, 5:10] = 2
        labels[20:30, 5:10, 5:10] = 2  # cut off by the edge of the scan
        labels[3:5, 20, 3] = 3
        affine = np.diag([1.0, 1.0, 1.5, 1.0])
        image = np.full(labels.shape, -500, dtype=np.int16)
        image[:5] = 300
        write_case(tmp_path, "one", Volume(image, affine), Volume(labels, affine))
        names = {"background": 0, "organ": 1, "bright": 2, "dark": 3}
        write_dataset_json(tmp_path, labels=names, num_training=1, extra={})
        write_spec(tiny_spec, tmp_path / "lesions.toml")
        return open_dataset(tmp_path)

    def test_only_whole_lesions_are_taken(self, dataset: Dataset) -> None:
        (shape,) = cut_bank(dataset, dataset.spec.lesions[0]).shapes
        assert (shape.case, shape.shape, shape.spacing_mm) == ("one", (5, 5, 5), (1.0, 1.0, 1.5))

    def test_none_large_enough_is_an_error(self, dataset: Dataset) -> None:
        with pytest.raises(ValueError, match=r'dark with shape = "real": expected a mask of at least 30 .* 2 voxels'):
            cut_bank(dataset, dataset.spec.lesions[1])


class TestParsing:
    def test_type_path_and_label(self) -> None:
        parsed = parse_shapes(["tumor=masks/here", "cyst=a:b/kits.npz:3"])
        assert parsed == {
            "tumor": ShapeSource(Path("masks/here")),
            "cyst": ShapeSource(Path("a:b/kits.npz"), 3),
        }

    @pytest.mark.parametrize("texts", [["tumor"], ["=x"], ["tumor="], ["tumor=x", "tumor=y"], ["tumor=x:0"]])
    def test_anything_else_is_refused(self, texts: list[str]) -> None:
        with pytest.raises(ValueError, match="expected TYPE=PATH or TYPE=PATH:LABEL with a label from 1, every type"):
            parse_shapes(texts)


class TestRefusals:
    def test_no_such_folder_and_one_without_masks(self, tmp_path: Path) -> None:
        for path, found in ((tmp_path / "none", "no such folder"), (tmp_path, "no such file in it")):
            with pytest.raises(ValueError, match=rf"--shapes {path}: expected a folder of NIfTI masks .* {found}"):
                read_bank(ShapeSource(path))

    def test_what_is_no_archive_of_masks(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "flat.npz", case=np.ones((9, 9)))
        np.savez(tmp_path / "objects.npz", case=np.array([{}], dtype=object))
        (tmp_path / "text.npz").write_text("no archive")
        for name in ("flat.npz", "objects.npz", "text.npz", "missing.npz"):
            with pytest.raises(ValueError, match=rf"--shapes {tmp_path / name}: expected an .npz with one 3-D mask"):
                read_bank(ShapeSource(tmp_path / name))

    def test_masks_without_the_asked_for_value(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "ones.npz", case=np.ones((9, 9, 9)))
        with pytest.raises(ValueError, match=r"ones.npz: expected a mask of at least 30 voxels .* found none"):
            read_bank(ShapeSource(tmp_path / "ones.npz", 2))
