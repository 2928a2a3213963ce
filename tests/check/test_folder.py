"""What lies in the folder, and who is on which side of the split."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.check.conftest import LABELS

from promptlesion.check.folder import read_folder, subject_findings
from promptlesion.data.dataset import image_path, write_dataset_json
from promptlesion.data.spec import DatasetError, DatasetSpec
from promptlesion.data.volume import Volume, write_volume


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        for path in (tmp_path / "imagesTr" / f"{name}_0000.nii.gz", tmp_path / "labelsTr" / f"{name}.nii.gz"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    write_dataset_json(tmp_path, labels=LABELS, num_training=3, extra={})
    return tmp_path


def codes(root: Path, spec: DatasetSpec | None = None) -> list[str]:
    folder = read_folder(root)
    return [finding.code for finding in (*folder.findings, *subject_findings(folder, spec))]


def split(root: Path, **parts: list[str]) -> None:
    (root / "splits_final.json").write_text(json.dumps([parts]))


def test_a_right_folder_gives_its_cases_and_nothing_else(root: Path) -> None:
    split(root, train=["a", "b"], val=["c"])
    assert codes(root) == []
    assert read_folder(root).names == ("a", "b", "c")


def test_a_case_with_a_label_map_alone_is_a_case(root: Path) -> None:
    (root / "imagesTr" / "a_0000.nii.gz").unlink()
    assert read_folder(root).names == ("a", "b", "c")


def test_no_folder_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: expected a dataset folder, found none"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="found none of them"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("dataset.json", None, "dataset-json"),
        ("dataset.json", "{", "dataset-json"),
        (
            "dataset.json",
            '{"channel_names": {"0": "CT"}, "labels": {"0": "a"}, "file_ending": ".nii.gz"}',
            "dataset-json",
        ),
        (
            "dataset.json",
            '{"channel_names": {"0": "CT"}, "labels": {"background": 0}, "file_ending": ".nii.gz", '
            '"subject_pattern": "("}',
            "dataset-json",
        ),
        ("imagesTr/a_0001.nii.gz", "", "file-name"),
        ("imagesTr/scan.mha", "", "file-name"),
        ("provenance.jsonl", "not JSON", "provenance"),
        ("provenance.jsonl", "[1]", "provenance"),
        ("splits_final.json", "{", "splits"),
        ("splits_final.json", "[1]", "splits"),
        ("splits_final.json", '[{"train": ["a"], "val": ["b", "d"]}]', "splits-unknown"),
        ("splits_final.json", '[{"train": ["a"], "val": ["b"]}]', "splits-left-out"),
        ("splits_final.json", '[{"train": ["a", "b", "c"], "val": ["c"]}]', "subject-leak"),
    ],
)
def test_what_does_not_fit_has_a_word(root: Path, path: str, content: str | None, code: str) -> None:
    (root / path).unlink(missing_ok=True)
    if content is not None:
        (root / path).write_text(content)
    assert code in codes(root)


def test_no_cases_and_a_wrong_count(root: Path) -> None:
    write_dataset_json(root, labels=LABELS, num_training=7, extra={})
    assert codes(root) == ["num-training"]
    for path in root.glob("*Tr/*"):
        path.unlink()
    assert "no-cases" in codes(root)


def test_a_subject_on_both_sides_of_the_split_is_named(root: Path, tiny_spec: DatasetSpec) -> None:
    for name in ("P1_x", "P1_y"):
        (root / "imagesTr" / f"{name}_0000.nii.gz").touch()
    split(root, train=["a", "P1_x"], val=["b", "P1_y"], test=["c"])
    spec = tiny_spec.model_copy(update={"subject_pattern": r"^([^_]+)"})
    folder = read_folder(root)
    (finding,) = subject_findings(folder, spec)
    assert finding.code == "subject-leak"
    assert "found 'P1' with P1_x in 'train' and P1_y in 'val'" in finding.message
    (finding,) = subject_findings(folder, tiny_spec)  # nothing but their names says they are one subject
    assert finding.code == "subjects-alike"
    write_dataset_json(root, labels=LABELS, num_training=5, extra={"subject_pattern": r"^([^_]+)"})
    assert [finding.code for finding in subject_findings(read_folder(root), tiny_spec)] == ["subject-leak"]


def test_a_synthetic_case_made_from_a_held_out_scan_is_named(root: Path) -> None:
    (root / "imagesTr" / "s_0000.nii.gz").touch()
    (root / "provenance.jsonl").write_text(json.dumps({"case": "s", "source": "c", "subject": "c"}) + "\n")
    split(root, train=["a", "b", "s"], val=["c"])
    (finding,) = subject_findings(read_folder(root), None)
    assert (finding.code, finding.severity, finding.case) == ("synthetic-leak", "error", "s")
    assert "found s made from c" in finding.message
    split(root, train=["a", "s", "c"], val=["b"])
    assert subject_findings(read_folder(root), None) == []


def test_names_that_look_like_scans_of_one_subject_are_pointed_out(root: Path, tiny_spec: DatasetSpec) -> None:
    for name in ("P01_scan1", "P01_scan2", "P02_scan1"):
        (root / "imagesTr" / f"{name}_0000.nii.gz").touch()
    folder = read_folder(root)
    (finding,) = subject_findings(folder, tiny_spec)
    assert finding.code == "subjects-alike"
    assert "P01_scan1, P01_scan2" in finding.message
    assert subject_findings(folder, tiny_spec.model_copy(update={"subject_pattern": "^(P..)"})) == []


def test_a_synthetic_scan_among_real_ones_is_named(root: Path) -> None:
    image = Volume(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4))
    write_volume(image, image_path(root, "b"), description="synthetic: promptlesion 0.1.0, med-ddpm")
    (finding,) = read_folder(root).findings
    assert (finding.severity, finding.code, finding.case) == ("warning", "synthetic", "b")
    (root / "provenance.jsonl").write_text(json.dumps({"case": "b", "source": "a", "subject": "a"}) + "\n")
    assert codes(root) == []
