from pathlib import Path

import pytest

from promptlesion.data.spec import DatasetError
from promptlesion.data.subjects import likely_subjects, said_subjects, subjects_by


@pytest.mark.parametrize(
    "groups",
    [
        [["pat00_art", "pat00_ven"], ["pat01_art", "pat01_ven"]],
        [["sub-01_ses-1", "sub-01_ses-2_run-1"], ["sub-02_ses-1"]],
        [["001_0", "001_1"], ["002_0"]],
        [["P01_20200101", "P01_20210304"], ["P02_2020-01-01"]],
        [["2020-01-05_P01", "2021-03-04_P01"], ["2020-01-05_P02"]],
        [["smith_art", "smith_ven"], ["jones_art"]],
        [["art_001", "ven_001"], ["art_002"]],
        [["case_1_a", "case_1_b"], ["case_2_a"]],
        [["P012 scan 2", "P012 scan 1"], ["P013-2"]],
        [["FLARE22_Tr_0001_0", "FLARE22_Tr_0001_1"], ["FLARE22_Tr_0002_0"]],
        [["case_000"], ["case_001"], ["case_002"]],
        [["liver_0"], ["liver_1"], ["liver_10"]],
        [["case_00012"], ["case_00013"]],
        [["TCGA-09-0364"], ["TCGA-09-0365"]],
        [["LIDC-IDRI-0001"], ["LIDC-IDRI-0002"]],
        [["Task03_liver_1"], ["Task03_liver_2"]],
        [["fold0_001"], ["fold1_001"]],
        [["1.2.840.1"], ["1.2.840.2"]],
        [["scan1"], ["scan2"]],
        [["20200101"], ["20200102"]],
        [["a"], ["b"], ["c"]],
        [["анна_1", "анна_2"], ["берта_1"]],
        [["anna_1", "anna_2"], ["berta_1", "berta_3"], ["carla_1"]],
        [["liver_1"], ["liver_2"], ["liver_3"], ["lung_1"], ["lung_2"]],
        [["only"]],
    ],
)
def test_scans_of_one_patient_are_told_by_their_names(groups: list[list[str]]) -> None:
    names = [name for group in groups for name in group]
    found: dict[str, list[str]] = {}
    for name, subject in likely_subjects(names).items():
        found.setdefault(subject, []).append(name)
    assert list(found.values()) == groups


def test_what_was_assumed_is_said() -> None:
    assert said_subjects({"a": "1", "b": "2"}) == (
        "every scan counts as another subject's (2); --subjects PATTERN or CSV says otherwise"
    )
    assert "3 scans count as those of 2 subjects by their names, a and b as one's" in said_subjects(
        {"a": "1", "b": "1", "c": "2"}
    )


@pytest.mark.parametrize(
    "table",
    [
        "file,subject\na.nii.gz,anna\nb.seg.nrrd,anna\nc,berta\n",
        "\ufeffName;Subject\nimages/a.nii;anna\nb;anna\nc;berta\n",
        "a\tanna\nb\tanna\n\nc\tberta\n",
    ],
)
def test_a_table_says_whose_scans_there_are(tmp_path: Path, table: str) -> None:
    (tmp_path / "s.csv").write_text(table, encoding="utf-8")
    subjects_of = subjects_by(str(tmp_path / "s.csv"))
    assert subjects_of(["a", "b", "c"]) == {"a": "anna", "b": "anna", "c": "berta"}
    with pytest.raises(DatasetError, match=r"s.csv: expected a line for every scan, found none for d"):
        subjects_of(["a", "d"])


def test_a_pattern_says_whose_scans_there_are() -> None:
    subjects_of = subjects_by(r"^(p\d+)_")
    assert subjects_of(["p1_x", "p1_y", "p2_x"]) == {"p1_x": "p1", "p1_y": "p1", "p2_x": "p2"}
    with pytest.raises(DatasetError, match=r"expected names that .* matches, found q1_x"):
        subjects_of(["p1_x", "q1_x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.csv", "missing.csv: expected a CSV file, found none"),
        ("(", "expected a CSV file or a regular expression, found neither"),
        ("p1", "expected a group that holds the subject"),
    ],
)
def test_what_is_neither_is_refused(text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        subjects_by(text)


@pytest.mark.parametrize(
    ("table", "message"),
    [("a,1\na,2\n", "line 2: expected one subject for a, found two"), ("a,1\nb\n", "line 2: expected a name and")],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "s.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        subjects_by(str(tmp_path / "s.csv"))
