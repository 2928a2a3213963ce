import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from promptlesion.data.dataset import (
    Dataset,
    DatasetError,
    DatasetSpec,
    image_path,
    label_path,
    open_dataset,
    read_case,
    write_case,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.intensity import HUWindow
from promptlesion.data.volume import read_volume, write_volume

MakeDataset = Callable[[int], Dataset]
REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"


def change_json(root: Path, **changes: object) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_written_dataset_is_opened_and_read_back(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    assert [case.name for case in dataset.cases] == ["case_000", "case_001", "case_002"]
    assert dataset.window == HUWindow(-200.0, 1300.0)
    assert dataset.lesion_labels == (3, 4)
    assert dataset.host_labels(dataset.spec.lesions[1]) == (2,)
    image, labels = read_case(dataset, dataset.case("case_001"))
    assert image.array.dtype == np.int16
    assert labels.array.dtype == np.uint8
    assert image.shape == labels.shape == (13, 17, 11)
    assert set(np.unique(labels.array)) == {0, 2, 3}


def test_nnunet_finds_what_it_needs(make_dataset: MakeDataset) -> None:
    root = make_dataset(2).root
    content = json.loads((root / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"]["background"] == 0
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".nii.gz"
    assert sorted(path.name for path in (root / "imagesTr").iterdir()) == [
        "case_000_0000.nii.gz",
        "case_001_0000.nii.gz",
    ]
    assert sorted(path.name for path in (root / "labelsTr").iterdir()) == [
        "case_000.nii.gz",
        "case_001.nii.gz",
    ]


def test_cases_are_selected_by_name(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    assert [case.name for case in dataset.select(["case_002", "case_000"]).cases] == ["case_000", "case_002"]
    with pytest.raises(DatasetError, match="found no case named case_007, case_9"):
        dataset.select(["case_9", "case_000", "case_007"])


def test_subjects_come_from_the_pattern(make_dataset: MakeDataset, spec: DatasetSpec) -> None:
    root = make_dataset(3).root
    assert [case.subject for case in open_dataset(root).cases] == ["case_000", "case_001", "case_002"]
    write_spec(spec.model_copy(update={"subject_pattern": r"_(\d\d)"}), root / "lesions.toml")
    assert [case.subject for case in open_dataset(root).cases] == ["00", "00", "00"]
    write_spec(spec.model_copy(update={"subject_pattern": r"^(s\d+)"}), root / "lesions.toml")
    with pytest.raises(DatasetError, match="case_000: expected a name that the subject pattern"):
        open_dataset(root)


def test_healthy_scans_take_lesion_types_they_do_not_have_yet(make_dataset: MakeDataset, spec: DatasetSpec) -> None:
    root = make_dataset(1).root
    values = sorted(json.loads((root / "dataset.json").read_text())["labels"].values())
    assert values == list(range(len(values)))
    first, second = (
        spec.lesions[0].model_copy(update={"name": name, "label": len(values) + k})
        for k, name in enumerate(("scar", "cyst"))
    )
    write_spec(spec.model_copy(update={"lesions": (second, first)}), root / "lesions.toml")
    labels = open_dataset(root).labels
    assert (labels["scar"], labels["cyst"]) == (len(values), len(values) + 1)
    write_spec(spec.model_copy(update={"lesions": (second,)}), root / "lesions.toml")
    with pytest.raises(DatasetError, match=rf"or {len(values)} under a new name .* found {len(values) + 1}"):
        open_dataset(root)


def test_lesions_of_a_folder_one_may_not_write_to(make_dataset: MakeDataset, tmp_path: Path, spec: DatasetSpec) -> None:
    root = make_dataset(1).root
    (root / "lesions.toml").rename(tmp_path / "mine.toml")
    with pytest.raises(DatasetError, match=r"lesions.toml: expected a file that names the lesion types"):
        open_dataset(root)
    assert open_dataset(root, tmp_path / "mine.toml").spec == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2]}},
            r"found the region \[1, 2\]; region-based labels are not",
        ),
        (
            {"labels": {"0": "background", "1": "liver"}},
            "`background` with value 0.*nnU-Net v1 wrote names by value",
        ),
        (
            {"labels": {"background": 0, "liver": "1"}},
            "whole value from 0 to 255 for the label 'liver', found '1'",
        ),
        (
            {"labels": {"background": 0, "liver": 300}},
            "whole value from 0 to 255 for the label 'liver', found 300",
        ),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "a value of its own for every label"),
        ({"labels": ["background"]}, r"`labels`, a table of values by name, found \['background'\]"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "one channel in `channel_names`, the CT, found .*PET"),
        ({"channel_names": None}, "one channel in `channel_names`, the CT, found None"),
        ({"file_ending": ".nrrd"}, "`file_ending` '.nii.gz', found '.nrrd'"),
    ],
)
def test_a_dataset_json_that_is_not_supported(make_dataset: MakeDataset, changes: dict[str, Any], message: str) -> None:
    root = make_dataset(1).root
    change_json(root, **changes)
    with pytest.raises(DatasetError, match=rf"dataset.json: expected .*{message}"):
        open_dataset(root)


def test_a_dataset_json_that_is_none(make_dataset: MakeDataset) -> None:
    root = make_dataset(1).root
    for content, message in (("{", "expected a JSON file"), ("[]", "expected a JSON object")):
        (root / "dataset.json").write_text(content)
        with pytest.raises(DatasetError, match=message):
            open_dataset(root)
    (root / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"expected the dataset.json of a dataset folder, found none"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'host = ["wall"]\n',
            "",
            r"lesions\.calcified_plaque to name its host, found none; the labels are background, lumen",
        ),
        ('["wall"]', "[]", "expected lesions.calcified_plaque to name its host, found none"),
        (
            'host = ["wall"]',
            'host = ["wall"]\nshape = "crescent"\nlumen = ["lumina"]',
            r"expected lesions.calcified_plaque.lumen to name labels .* found 'lumina'",
        ),
        ('["wall"]', '["wal"]', r"expected lesions.calcified_plaque.host .*lumen, wall.* found 'wal'"),
        ("label = 3", "label = 9", r"expected lesions.calcified_plaque.label to be a label .* found 9"),
    ],
)
def test_a_lesion_type_that_does_not_fit(make_dataset: MakeDataset, old: str, new: str, message: str) -> None:
    path = make_dataset(1).root / "lesions.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        open_dataset(path.parent)


def test_files_that_are_missing_or_too_many(make_dataset: MakeDataset) -> None:
    root = make_dataset(2).root
    (root / "imagesTr" / "._case_000_0000.nii.gz").write_bytes(b"left by macOS")
    (root / "imagesTr" / ".4711.case_000_0000.nii.gz").write_bytes(b"left by a killed process")
    assert len(open_dataset(root).cases) == 2
    second_channel = root / "imagesTr" / "case_000_0001.nii.gz"
    second_channel.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"found case_000_0001.nii.gz; several channels are not supported"):
        open_dataset(root)
    second_channel.unlink()
    label_path(root, "case_001").unlink()
    with pytest.raises(DatasetError, match=r"^case_001: expected the label map .*case_001.nii.gz, found none"):
        open_dataset(root)
    for path in (root / "imagesTr").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"imagesTr: expected CTs named CASE_0000.nii.gz, found none"):
        open_dataset(root)


def test_every_fault_of_a_case_names_it(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    case = dataset.cases[0]
    image, labels = read_volume(case.image_path), read_volume(case.label_path)

    def check(message: str) -> None:
        with pytest.raises(DatasetError, match=f"^case_000: .*{message}"):
            read_case(dataset, case)
        write_case(dataset.root, case.name, image, labels)

    content = case.image_path.read_bytes()
    case.image_path.write_bytes(b"")
    check(r"case_000_0000.nii.gz: expected a NIfTI file, found an empty one")
    case.image_path.write_bytes(content[:-20])
    check(r"case_000_0000.nii.gz: expected a whole NIfTI file, found a truncated or damaged one")
    case.label_path.unlink()
    check(r"case_000.nii.gz: expected a NIfTI file, found none")
    write_volume(labels.with_array(labels.array + np.uint8(2)), case.label_path)
    check(r"expected the label values \[0, 1, 2, 3, 4\] of dataset.json, found 5, 6")
    write_volume(image.with_array((image.array / np.float32(1200)).astype(np.float32)), case.image_path)
    check("these intensities are scaled")
    nib.Nifti1Image(labels.array, np.diag([1.0, 1.5, 4.0, 1.0])).to_filename(case.label_path)
    check(r"label spacing \(1.0, 1.5, 4.0\) mm differs from the CT's \(1.0, 1.5, 2.0\) mm")
    read_case(dataset, case)


def test_a_case_with_labels_beside_it_is_not_written(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(2)
    first, second = (read_case(dataset, case) for case in dataset.cases)
    with pytest.raises(DatasetError, match="mixed: label origin"):
        write_case(tmp_path / "new", "mixed", first[0], second[1])
    assert not image_path(tmp_path / "new", "mixed").exists()


def test_extra_keys_are_kept(tmp_path: Path) -> None:
    write_dataset_json(tmp_path, labels={"background": 0}, num_training=0, extra={"made_by": "promptlesion"})
    assert json.loads((tmp_path / "dataset.json").read_text())["made_by"] == "promptlesion"


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real CT of {SHARED} is absent")
def test_real_cases_are_read_and_the_example_fits_them() -> None:
    dataset = open_dataset(SHARED / "Dataset101_Sarcoma", REPOSITORY / "examples" / "sarcoma.toml")
    (sarcoma,) = dataset.spec.lesions
    assert dataset.host_labels(sarcoma) == (dataset.labels["soft_tissue"],)
    for case in dataset.cases[::5]:
        image, labels = read_case(dataset, case)
        mean_hu = image.array[labels.array == sarcoma.label].mean()
        assert sarcoma.hu[0] <= mean_hu <= sarcoma.hu[1]


@pytest.mark.parametrize("key", ["label", "host"])
def test_nnunets_ignore_is_neither_lesion_nor_host(make_dataset: Callable[[int], Dataset], key: str) -> None:
    root = make_dataset(1).root
    content = json.loads((root / "dataset.json").read_text())
    content["labels"]["ignore"] = max(content["labels"].values()) + 1
    (root / "dataset.json").write_text(json.dumps(content))
    dataset = open_dataset(root)
    assert dataset.ignored_label == content["labels"]["ignore"]
    change = {"label": dataset.ignored_label, "host": ("ignore",)}
    first, *others = dataset.spec.lesions
    spoilt = dataset.spec.model_copy(
        update={"lesions": (first.model_copy(update={key: change[key]}), *others), "subject_pattern": None}
    )
    write_spec(spoilt, root / "lesions.toml")
    with pytest.raises(DatasetError, match="ignore"):
        open_dataset(root)
