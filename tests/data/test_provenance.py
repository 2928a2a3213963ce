"""Where synthetic cases come from, read back by name."""

import json
from collections.abc import Callable
from pathlib import Path

from promptlesion.data.dataset import Dataset, open_dataset, write_spec
from promptlesion.data.provenance import read_provenance


def write(root: Path, lines: list[dict[str, object]]) -> None:
    (root / "provenance.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")


def test_lines_come_back_by_case(tmp_path: Path) -> None:
    lines = [{"case": "b", "subject": "s", "lesions": []}, {"case": "a", "subject": "t", "lesions": [{"type": "x"}]}]
    write(tmp_path, lines)
    assert read_provenance(tmp_path) == {"b": lines[0], "a": lines[1]}


def test_a_folder_of_real_scans_has_none(tmp_path: Path) -> None:
    assert read_provenance(tmp_path) == {}


def test_a_synthetic_case_is_its_source_subjects_whatever_its_name(make_dataset: Callable[[int], Dataset]) -> None:
    dataset = make_dataset(2)
    spec = dataset.spec.model_copy(update={"subject_pattern": r"(case_\d+)"})
    write_spec(spec, dataset.root / "lesions.toml")
    write(dataset.root, [{"case": "case_001", "subject": "patient_7"}])
    subjects = {case.name: case.subject for case in open_dataset(dataset.root).cases}
    assert subjects == {"case_000": "case_000", "case_001": "patient_7"}
