"""The contact sheet: the right lesions, at the right place and size, before and after."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image as matplotlib_image

from promptlesion.data.dataset import (
    Dataset,
    DatasetError,
    DatasetSpec,
    LesionType,
    open_dataset,
    write_case,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.volume import Volume
from promptlesion.evaluation.contact_sheet import contact_sheet
from promptlesion.evaluation.lesion_tiles import ListedLesion, choose_evenly, cut_tiles, listed_lesions

SHAPE = (60, 50, 40)
HOST_HU, LESION_HU = 50, 700
LABELS = {"background": 0, "wall": 1, "hard": 2, "soft": 3}
SPEC = DatasetSpec(
    window_hu=(-200.0, 1300.0),
    spacing_mm=(1.0, 1.0, 1.0),
    lesions=(
        LesionType(name="hard", label=2, host=("wall",), diameter_mm=(2.0, 20.0), hu=(130.0, 1300.0)),
        LesionType(name="soft", label=3, host=("wall",), diameter_mm=(2.0, 20.0), hu=(-50.0, 130.0)),
    ),
)


def make_cohort(root: Path, spacing_mm: tuple[float, float, float]) -> tuple[Dataset, Dataset]:
    """One case with a box of 6 by 8 by 10 mm in a scan with an old lesion; one lesion of the list was not accepted."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-10.0, 20.0, 30.0)
    hu, labels = np.full(SHAPE, HOST_HU, np.int16), np.ones(SHAPE, np.uint8)
    hu[0] = -1000
    hu[50:54, 5:9, 5:9], labels[50:54, 5:9, 5:9] = LESION_HU, 2
    write_case(root / "real", "case_7", Volume(hu, affine), Volume(labels, affine))
    box = tuple(slice(20, 20 + round(size / mm)) for size, mm in zip((6, 8, 10), spacing_mm, strict=True))
    hu, labels = hu.copy(), labels.copy()
    hu[box], labels[box] = LESION_HU, 2
    write_case(root / "synthetic", "synthetic_0", Volume(hu, affine), Volume(labels, affine))
    center = affine[:3, :3] @ [side.start + 2 for side in box] + affine[:3, 3]
    told = {"type": "hard", "mask_origin": "real: case_1", "diameter_mm": 9.7, "mean_hu": 700.2, "attempts": 1}
    lesions = [
        {**told, "center_mm": center.tolist(), "is_accepted": True},
        {**told, "type": "soft", "center_mm": [0.0, 0.0, 0.0], "is_accepted": False},
    ]
    line = {"case": "synthetic_0", "source": "case_7", "subject": "case_7", "lesions": lesions}
    (root / "synthetic" / "provenance.jsonl").write_text(json.dumps(line) + "\n")
    for name in ("real", "synthetic"):
        write_dataset_json(root / name, labels=LABELS, num_training=1, extra={})
        write_spec(SPEC, root / name / "lesions.toml")
    return open_dataset(root / "real"), open_dataset(root / "synthetic")


@pytest.mark.parametrize(
    ("spacing_mm", "size_mm"),
    [
        ((1.0, 1.0, 1.0), (8, 6)),  # axial: y down, x across
        ((0.5, 1.0, 3.0), (8, 6)),
        ((1.0, 2.0, 1.0), (10, 6)),  # coronal
        ((3.0, 1.0, 1.0), (10, 8)),  # sagittal
    ],
)
def test_a_tile_is_the_slice_before_and_after_with_the_lesion_in_the_middle(
    tmp_path: Path, spacing_mm: tuple[float, float, float], size_mm: tuple[int, int]
) -> None:
    source, synthetic = make_cohort(tmp_path, spacing_mm)
    (lesion,) = listed_lesions(synthetic)
    (tile,) = cut_tiles(source, synthetic, [lesion])
    np.testing.assert_array_equal(tile.mask, tile.after - tile.before == LESION_HU - HOST_HU)
    rows, columns = (np.flatnonzero(tile.mask.any(axis=axis)) for axis in (1, 0))
    assert tile.mask.sum() == len(rows) * len(columns)
    assert (len(rows) * tile.pixel_mm[0], len(columns) * tile.pixel_mm[1]) == size_mm
    assert tile.field_mm == 24.0
    for found, pixel_mm, corner_mm in zip((rows, columns), tile.pixel_mm, tile.corner_mm, strict=True):
        middle_mm = corner_mm + (found[0] + found[-1] + 1) / 2 * pixel_mm
        assert middle_mm == pytest.approx(12.0)


def test_tiles_are_upright(tmp_path: Path) -> None:
    source, synthetic = make_cohort(tmp_path, (1.0, 1.0, 1.0))
    (lesion,) = listed_lesions(synthetic)
    wide = [(tile.before, tile.field_mm) for tile in cut_tiles(source, synthetic, [lesion])]
    assert wide[0][0].shape == (24, 24) and (wide[0][0] == HOST_HU).all()
    hu, labels = (np.full(SHAPE, HOST_HU, np.int16), np.ones(SHAPE, np.uint8))
    hu[0] = -1000
    hu[28:, 28:] = 300  # to the patient's right and the front
    for dataset, name in ((source, "case_7"), (synthetic, "synthetic_0")):
        new = labels.copy()
        new[20:26, 20:28, 20:30] = 1 if name == "case_7" else 2
        write_case(dataset.root, name, Volume(hu, np.eye(4)), Volume(new, np.eye(4)))
    (tile,) = cut_tiles(source, synthetic, [lesion])
    assert (tile.before[:8, :7] == 300).all() and (tile.before[8:] == HOST_HU).all()


def test_the_sheet_is_a_picture_and_the_same_twice(tmp_path: Path) -> None:
    source, synthetic = make_cohort(tmp_path, (0.5, 1.0, 3.0))
    for name in ("first.png", "second.png"):
        contact_sheet(source, synthetic, tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    pixels = matplotlib_image.imread(tmp_path / "first.png")
    orange = (np.abs(pixels[..., :3] - np.array([0xE6, 0x9F, 0x00]) / 255) < 0.03).all(axis=-1)
    assert orange.sum() > 100


def test_names_that_the_font_does_not_have_and_a_cohort_without_lesions(tmp_path: Path) -> None:
    source, synthetic = make_cohort(tmp_path / "病例 $x_1^", (1.0, 1.0, 1.0))
    contact_sheet(source, synthetic, tmp_path / "named.png")
    path = synthetic.root / "provenance.jsonl"
    path.write_text(path.read_text().replace('"is_accepted": true', '"is_accepted": false'))
    contact_sheet(source, synthetic, tmp_path / "empty.png")
    assert {path.name for path in tmp_path.glob("*.png")} == {"named.png", "empty.png"}


def listed(types: str) -> list[ListedLesion]:
    names = {"h": "hard", "s": "soft"}
    return [
        ListedLesion(f"case_{index}", "case", names[letter], (0.0, 0.0, 0.0), 3.0, 100.0, "ellipsoid")
        for index, letter in enumerate(types)
    ]


@pytest.mark.parametrize(
    ("types", "max_lesions", "expected"),
    [
        ("hhss", 4, {"hard": 2, "soft": 2}),
        ("h" * 90 + "s" * 10, 10, {"hard": 9, "soft": 1}),
        ("h" * 999 + "s", 10, {"hard": 9, "soft": 1}),
        ("hs" * 50, 11, {"hard": 6, "soft": 5}),
        ("hs" * 50, 1, {"hard": 1, "soft": 1}),
    ],
)
def test_an_even_choice_shows_every_type(types: str, max_lesions: int, expected: dict[str, int]) -> None:
    lesions = listed(types)
    chosen = choose_evenly(lesions, ["hard", "soft"], max_lesions)
    assert Counter(lesion.lesion_type for lesion in chosen) == expected
    assert len({lesion.case for lesion in chosen}) == len(chosen)
    assert chosen == [lesion for lesion in lesions if lesion in chosen]
    places = [int(lesion.case[5:]) for lesion in chosen if lesion.lesion_type == "hard"]
    assert len(set(np.diff(places) // max(1, len(types) // max_lesions))) <= 2


def test_what_does_not_fit_together_is_named(tmp_path: Path) -> None:
    source, synthetic = make_cohort(tmp_path, (1.0, 1.0, 1.0))
    with pytest.raises(DatasetError, match=r"expected the provenance\.jsonl of a synthetic dataset"):
        contact_sheet(synthetic, source, tmp_path / "sheet.png")
    path = synthetic.root / "provenance.jsonl"
    path.write_text(path.read_text().replace('"is_accepted": false', '"is_accepted": true'))
    with pytest.raises(DatasetError, match=r"synthetic_0: expected a new soft at .* found none in its label map"):
        contact_sheet(source, synthetic, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
