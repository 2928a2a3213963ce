"""The lesions.toml to start from: measured, commented, and one that the package reads."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.check.conftest import LABELS, write_bodies

from promptlesion.check.draft import draft_spacing_mm, draft_spec, guess_lesion_labels
from promptlesion.check.facts import CaseFacts
from promptlesion.data.dataset import open_dataset, write_dataset_json
from promptlesion.data.spec import DatasetSpec, read_spec


def drafted(cases: list[CaseFacts], labels: dict[str, int], folder: Path) -> DatasetSpec:
    draft = draft_spec(cases, labels, downsampling=4, dataset_name="D")
    assert guess_lesion_labels(labels)
    (folder / "drafted.toml").write_text(draft, encoding="utf-8")
    return read_spec(folder / "drafted.toml")


@pytest.mark.parametrize(
    ("name", "is_lesion"),
    [
        *[(name, True) for name in ("liver_tumor", "Tumour", "pulmonary nodule", "non_calcified_plaque", "GTV-1")],
        *[(name, True) for name in ("sarcoma", "pancreas cancer", "kidney cyst", "metastases", "HCC", "haemorrhage")],
        *[(name, False) for name in ("liver", "soft_tissue", "lumen", "wall", "aorta", "cystic_duct_", "spleen")[:5]],
    ],
)
def test_lesions_are_known_by_their_names(name: str, is_lesion: bool) -> None:
    assert bool(guess_lesion_labels({"background": 0, name: 3})) == is_lesion


def test_a_draft_says_what_was_measured(examined: list[CaseFacts], tmp_path: Path) -> None:
    spec = drafted(examined, LABELS, tmp_path)
    (lesion,) = spec.lesions
    assert (lesion.name, lesion.label, lesion.host, lesion.shape) == ("liver_tumor", 3, ("liver",), "ellipsoid")
    diameters = [one.diameter_mm for case in examined for one in case.lesions]
    assert lesion.diameter_mm[0] <= np.median(diameters) <= lesion.diameter_mm[1]
    means = [one.mean_hu for case in examined for one in case.lesions]
    assert lesion.hu[0] < min(means) < max(means) < lesion.hu[1]
    assert spec.window_hu[0] < 30 < 150 < spec.window_hu[1]
    text = (tmp_path / "drafted.toml").read_text()
    assert f"median {np.median(diameters):.1f}" in text
    assert all("#" in line for line in text.splitlines() if " = " in line)


def test_a_draft_opens_the_dataset_it_was_made_for(examined: list[CaseFacts], tmp_path: Path) -> None:
    root = write_bodies(tmp_path / "data", 3)
    (root / "lesions.toml").write_text(draft_spec(examined, LABELS, downsampling=4, dataset_name="ä [x]"), "utf-8")
    assert [lesion.name for lesion in open_dataset(root).spec.lesions] == ["liver_tumor"]


@pytest.mark.parametrize("names", [("печень", "опухоль печени"), ("肝脏", "肝肿瘤"), ("Leber", "Läsion")])
def test_names_in_any_script_are_drafted(names: tuple[str, str], examined: list[CaseFacts], tmp_path: Path) -> None:
    organ, lesion = names
    labels = {{"liver": organ, "liver_tumor": lesion}.get(name, name): value for name, value in LABELS.items()}
    (drawn,) = drafted(examined, labels, tmp_path).lesions
    assert (drawn.name, drawn.label, drawn.host) == (lesion.replace(" ", "_"), LABELS["liver_tumor"], (organ,))


def test_a_host_of_no_like_name_is_what_lies_around(examined: list[CaseFacts], tmp_path: Path) -> None:
    labels = {"background": 0, "organ a": 1, "organ b": 2, "hypodense lesion": 3}
    (lesion,) = drafted(examined, labels, tmp_path).lesions
    assert (lesion.name, lesion.host) == ("hypodense_lesion", ("organ a",))


def test_types_of_like_names_stay_apart(examined: list[CaseFacts], tmp_path: Path) -> None:
    labels = {"background": 0, "organ": 1, "tumor ü": 2, "tumor ö": 3}
    first, second = drafted(examined, labels, tmp_path).lesions
    assert first.name != second.name


def test_plaque_is_a_crescent_in_the_wall_with_a_wide_window(examined: list[CaseFacts], tmp_path: Path) -> None:
    labels = {"background": 0, "lumen": 1, "wall": 2, "calcified_plaque": 3}
    spec = drafted(examined, labels, tmp_path)
    (lesion,) = spec.lesions
    assert (lesion.host, lesion.shape, lesion.lumen) == (("wall",), "crescent", ("lumen",))
    assert spec.window_hu == (-200.0, 1300.0)


def test_a_lesion_label_without_any_lesion_and_without_organs(examined: list[CaseFacts], tmp_path: Path) -> None:
    bare = [replace(case, lesions=(), labels={}, neighbours={}) for case in examined]
    (lesion,) = drafted(bare, {"background": 0, "tumor": 1}, tmp_path).lesions
    assert lesion.host == ("tumor",)


@pytest.mark.parametrize("labels", [{"liver": 1, "spleen": 2}, {"lumen": 1, "wall": 2}])
def test_healthy_scans_get_templates_that_work_once_uncommented(
    examined: list[CaseFacts], tmp_path: Path, labels: dict[str, int]
) -> None:
    draft = draft_spec(examined, {"background": 0, **labels}, downsampling=4, dataset_name="healthy")
    assert not guess_lesion_labels({"background": 0, **labels})
    assert "[lesions." not in re.sub(r"^#.*$", "", draft, flags=re.MULTILINE)
    proposed = re.findall(r"# \[lesions\.(\w+)\]", draft)
    assert len(proposed) == (1 if "lumen" in labels else 2)
    root = write_bodies(tmp_path / "data", 3)
    write_dataset_json(root, labels={"background": 0, **labels}, num_training=3, extra={})
    uncommented = re.sub(r"^# (\[lesions|label|host|diameter_mm|hu|shape|lumen)", r"\1", draft, flags=re.MULTILINE)
    (root / "lesions.toml").write_text(uncommented)
    assert [lesion.name for lesion in open_dataset(root).spec.lesions] == proposed


@pytest.mark.parametrize(
    ("diameter_mm", "scans_mm", "expected"),
    [
        (18.0, (0.7, 0.7, 1.0), (1.0, 1.0, 1.0)),  # four latent voxels wide: 1.125, rounded down
        (3.0, (0.6, 0.6, 0.6), (0.6, 0.6, 0.6)),  # never finer than was scanned
        (90.0, (0.9, 0.9, 3.0), (3.0, 3.0, 3.0)),  # never coarser than 3 mm
        (16.0, (0.8, 0.8, 5.0), (1.0, 1.0, 2.5)),  # thick slices are interpolated twofold at most
    ],
)
def test_the_proposed_spacing_shows_the_typical_lesion(
    examined: list[CaseFacts],
    diameter_mm: float,
    scans_mm: tuple[float, float, float],
    expected: tuple[float, float, float],
) -> None:
    (lesion,) = examined[0].lesions
    case = replace(examined[0], spacing_mm=scans_mm, lesions=(replace(lesion, diameter_mm=diameter_mm),))
    assert draft_spacing_mm([case], downsampling=4) == expected
