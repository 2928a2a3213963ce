"""What `prepare` did is said beside the dataset, and what matters of it again by `check`, which names nobody."""

from pathlib import Path

import numpy as np
import pytest

from promptlesion.check.folder import read_folder
from promptlesion.data.sources import open_source, write_source
from promptlesion.data.sources.preparation import report_path
from promptlesion.data.volume import Volume, write_volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scans of one patient and one of another, whose label map is on another grid."""
    hu = np.random.default_rng(0).integers(-1000, 900, (9, 8, 7)).astype(np.int16)
    affine = np.diag([0.9, 0.8, 2.5, 1.0])
    for name, shape in (("anna_art", hu.shape), ("anna_ven", hu.shape), ("berta_art", (3, 3, 3))):
        write_volume(Volume(hu, affine), tmp_path / "in" / "images" / f"{name}.nii.gz")
        labels = np.zeros(shape, dtype=np.uint8)
        labels[1, 1, 1] = 1
        write_volume(Volume(labels, affine), tmp_path / "in" / "labels" / f"{name}.nii.gz")
    with (tmp_path / "in" / "images" / "anna_ven.nii.gz").open("ab") as file:
        file.write(b"more")
    return tmp_path / "in"


def test_a_line_each_says_what_was_kept_assumed_and_left_out(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    conversion = write_source(open_source(folder), out, skips_refused=True)
    assert report_path(out) == tmp_path / "out-prepared.txt"
    heading, *lines = report_path(out).read_text(encoding="utf-8").splitlines()
    assert heading == f"{out}: 2 cases of the layout folders"
    kinds = [line.split(":")[0] for line in lines]
    assert kinds == ["note", "left out", "kept", "kept"]
    assert "3 scans count as those of 2 subjects by their names" in lines[0]
    (reason,) = conversion.refused
    assert lines[1] == f"left out: {reason}"
    assert lines[2].startswith(f"kept: S0001_01 from {folder / 'images' / 'anna_art.nii.gz'}")
    assert lines[3].startswith(f"kept: S0001_02 from {folder / 'images' / 'anna_ven.nii.gz'}; ")
    assert "bytes after" in lines[3]
    before = report_path(out).read_bytes()
    write_source(open_source(folder), out, skips_refused=True)
    assert report_path(out).read_bytes() == before


def test_check_repeats_what_was_said_of_cases_and_names_nobody(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_source(open_source(folder), out, skips_refused=True)
    (finding,) = (finding for finding in read_folder(out).findings if finding.code == "prepared")
    assert (finding.severity, finding.case) == ("note", "S0001_02")
    assert "bytes after" in finding.message
    inside = b"".join(path.read_bytes() for path in out.rglob("*.json"))
    assert b"anna" not in inside and b"berta" not in inside


def test_a_dataset_of_another_origin_has_no_such_notes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_source(open_source(folder), out, skips_refused=True)
    for path in (out / "prepared").glob("*.json"):
        path.unlink()
    assert "prepared" not in {finding.code for finding in read_folder(out).findings}
