"""The check as a whole: what it writes, how it ends, and what it leaves alone."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.check.conftest import body, write_bodies

from promptlesion.check import dataset_check
from promptlesion.check.dataset_check import DatasetCheck, check_dataset
from promptlesion.check.report import write_check
from promptlesion.cli import main
from promptlesion.config import Config
from promptlesion.cost.estimate import StageEstimate
from promptlesion.data.dataset import image_path, label_path, open_dataset, write_spec
from promptlesion.data.spec import DatasetError, DatasetSpec, LesionType
from promptlesion.data.volume import write_volume

Answer = tuple[int, str, str]


def break_some(root: Path) -> None:
    """Flip a label map, scale a scan, shrink a lesion to a crumb, truncate a scan."""
    image, labels = body(1)
    write_volume(labels.with_array(np.ascontiguousarray(labels.array[::-1])), label_path(root, "case_001"))
    image, labels = body(2)
    write_volume(image.with_array((image.array / 4000).astype(np.float32)), image_path(root, "case_002"))
    image, labels = body(3, tumor_radius_mm=1.5)
    write_volume(labels, label_path(root, "case_003"))
    write_volume(image, image_path(root, "case_003"))
    path = image_path(root, "case_004")
    path.write_bytes(path.read_bytes()[:500])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> DatasetCheck:
    """A finished check of six cases, four of them broken, without a lesions.toml."""
    root = write_bodies(tmp_path_factory.mktemp("broken") / "<b>Dataset & co", 6)
    break_some(root)
    stages = [
        StageEstimate(name, "some work", 90.0, 0.1, 2**31, 0, 2**20, 32, 96)
        for name in ("cache", "autoencoder", "diffusion", "synthesis", "segmentation")
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_check, "estimate_stages", lambda *_, **__: stages)
        return check_dataset(root, config=tiny_config, device="cpu")


@pytest.fixture
def without_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes seconds and is tested elsewhere."""
    monkeypatch.setattr(dataset_check, "estimate_stages", lambda *_, **__: [])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def call(*arguments: object) -> Answer:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["promptlesion", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


def test_all_findings_are_reported_and_none_of_the_right_cases(broken: DatasetCheck) -> None:
    found = {(finding.code, finding.case) for finding in broken.findings}
    assert {
        ("flipped-labels", "case_001"),
        ("not-hounsfield", "case_002"),
        ("lesion-under-latent-voxel", "case_003"),
        ("unreadable", "case_004"),
        ("lesions-toml-written", ""),
    } <= found
    assert not {case for _, case in found} & {"case_000", "case_005"}
    severities = [finding.severity for finding in broken.findings]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert broken.would_spoil_a_run
    assert len(broken.cases) == 6


def test_a_lesions_toml_is_drafted_once_and_never_overwritten(broken: DatasetCheck) -> None:
    assert broken.is_spec_drafted
    assert broken.spec_path == broken.root / "lesions.toml"
    assert [lesion.name for lesion in open_dataset(broken.root).spec.lesions] == ["liver_tumor"]


def test_the_report_is_one_file_with_every_case_worst_first(broken: DatasetCheck) -> None:
    path = write_check(broken)
    assert path == broken.root / "check" / "check.html"
    html = path.read_text(encoding="utf-8")
    assert "http://" not in html and "https://" not in html and 'src="data:' in html
    assert "<b>Dataset" not in html  # names are escaped
    places = [html.index(f'id="case-case_{index:03d}"') for index in (1, 2, 4, 3, 0, 5)]
    assert max(places[:3]) < places[3] < min(places[4:])
    assert html.count('src="data:image/jpeg;base64,') == 3 * 5  # the truncated scan has no picture
    assert "segmentation" in html and "would spoil or stop a run" in html
    assert "median" in html.split("The lesions.toml that was written")[1]


def test_the_report_for_programs_holds_what_the_other_shows(broken: DatasetCheck) -> None:
    content = json.loads((write_check(broken).parent / "check.json").read_text(encoding="utf-8"))
    assert content["counts"]["error"] == sum(finding["severity"] == "error" for finding in content["findings"])
    assert [case["case"] for case in content["cases"]] == [f"case_{index:03d}" for index in range(6)]
    (lesion,) = content["cases"][0]["lesions"]
    edge = np.cbrt(np.prod(content["network_grid"]["latent_voxel_mm"]))
    assert lesion["diameter_latent_voxels"] == pytest.approx(lesion["diameter_mm"] / edge)
    assert {stage["stage"] for stage in content["stages"]} >= {"autoencoder", "diffusion", "segmentation"}


def test_equal_folders_give_equal_reports(tmp_path: Path, tiny_config: Config, without_estimate: None) -> None:
    root = write_bodies(tmp_path / "data", 3)
    texts = []
    for _ in range(2):
        check = check_dataset(root, config=tiny_config, device="cpu", out=tmp_path / "out")
        texts.append(write_check(check).read_text().split("<h2>Cases")[1])
        (tmp_path / "out" / "lesions.toml").unlink(missing_ok=True)
    assert texts[0] == texts[1]


def test_progress_counts_cases_and_stages(tmp_path: Path, tiny_config: Config, without_estimate: None) -> None:
    root = write_bodies(tmp_path / "data", 2)
    told: list[tuple[int, int]] = []
    check_dataset(root, config=tiny_config, device="cpu", on_progress=lambda done, total: told.append((done, total)))
    assert told[:2] == [(1, 7), (2, 7)]


def test_the_command_ends_with_0_1_or_2(run: Callable[..., Answer], tmp_path: Path, without_estimate: None) -> None:
    root = write_bodies(tmp_path / "data", 5)
    code, out, err = run(root, "--preset", "demo")
    assert code == 0, out + err
    assert "ready to train on: 0 errors" in out
    assert "lesions.toml was written to start from" in out
    edited = (root / "lesions.toml").read_text().replace("hu = [", "hu = [-900.0, -800.0]  # [")
    (root / "lesions.toml").write_text(edited)
    code, out, _ = run(root, "--preset", "demo")
    assert code == 0
    assert "expected liver_tumor of -900 to -800 HU on average" in out
    assert "and 1 more" in out
    assert (root / "lesions.toml").read_text() == edited  # never overwritten
    (root / "labelsTr" / "case_002.nii.gz").unlink()
    code, out, _ = run(root, "--preset", "demo")
    assert code == 1
    assert "would spoil a run: 1 error" in out
    assert "case_002: expected the label map" in out
    code, out, err = run(tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err == f"{tmp_path / 'nowhere'}: expected a dataset folder, found none\n"
    assert not (tmp_path / "nowhere").exists()
    code, _, err = run(root, "--device", "cuda:77")
    assert code == 2
    assert "cuda:77" in err


def test_another_out_leaves_the_dataset_as_it_is(
    run: Callable[..., Answer], tmp_path: Path, without_estimate: None
) -> None:
    root, out = write_bodies(tmp_path / "data", 3), tmp_path / "out"
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    assert run(root, "--out", out, "--preset", "demo")[0] == 0
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before
    assert {path.name for path in out.iterdir()} == {"check.html", "check.json", "lesions.toml"}
    code, said, _ = run(root, "--out", out, "--preset", "demo")  # the draft, edited perhaps, is what counts now
    assert code == 0
    assert "was written" not in said


def test_a_folder_that_cannot_be_written_to_names_out(
    tmp_path: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_bodies(tmp_path / "data", 3)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DatasetError, match=r"check: expected a folder to write .*Read-only file system.* --out"):
        check_dataset(root, config=tiny_config, device="cpu")


def test_lesions_elsewhere_are_used_and_wrong_ones_named(
    run: Callable[..., Answer], tmp_path: Path, without_estimate: None
) -> None:
    root, elsewhere = write_bodies(tmp_path / "data", 3), tmp_path / "mine.toml"
    lesion = LesionType(name="mine", label=3, host=("spleen",), diameter_mm=(2.0, 30.0), hu=(0.0, 120.0))
    spec = DatasetSpec(window_hu=(-160.0, 240.0), spacing_mm=(2.0, 2.0, 2.0), lesions=(lesion,))
    write_spec(spec, elsewhere)
    code, out, _ = run(root, "--lesions", elsewhere, "--preset", "demo")
    assert code == 0
    assert "mine" in out
    assert not (root / "lesions.toml").exists()
    elsewhere.write_text("nonsense")
    code, out, _ = run(root, "--lesions", elsewhere, "--preset", "demo")
    assert code == 1
    assert "mine.toml: expected a TOML file" in out
    code, out, _ = run(root, "--lesions", tmp_path / "absent.toml", "--preset", "demo")
    assert code == 1
    assert "absent.toml" in out


def test_what_training_would_refuse_is_said_beforehand(
    run: Callable[..., Answer], tmp_path: Path, without_estimate: None
) -> None:
    code, out, _ = run(write_bodies(tmp_path / "data", 2), "--preset", "demo")
    assert code == 1
    assert "expected at least 3 subjects to split" in out


def test_healthy_scans_get_templates(run: Callable[..., Answer], tmp_path: Path, without_estimate: None) -> None:
    root = write_bodies(tmp_path / "data", 3)
    content = json.loads((root / "dataset.json").read_text())
    content["labels"] = {"background": 0, "liver": 1, "spleen": 2, "bowel": 3}
    (root / "dataset.json").write_text(json.dumps(content))
    code, out, _ = run(root, "--preset", "demo")
    assert code == 1
    assert "expected a label that is a lesion by its name" in out
    assert "# [lesions.liver_tumor]" in (root / "lesions.toml").read_text()


def test_without_a_dataset_json_the_cases_are_examined_all_the_same(
    tmp_path: Path, tiny_config: Config, without_estimate: None
) -> None:
    root = write_bodies(tmp_path / "data", 3)
    (root / "dataset.json").unlink()
    check = check_dataset(root, config=tiny_config, device="cpu")
    assert [finding.code for finding in check.findings] == ["dataset-json"]
    assert not check.is_spec_drafted
    assert all(case.hu is not None for case in check.cases)
    assert write_check(check).is_file()


def test_a_folder_without_any_readable_case_has_a_report(tmp_path: Path, tiny_config: Config) -> None:
    root = write_bodies(tmp_path / "data", 1)
    image_path(root, "case_000").write_bytes(b"nothing")
    check = check_dataset(root, config=tiny_config, device="cpu")
    assert check.stages == ()
    assert check.would_spoil_a_run
    assert write_check(check).is_file()


@pytest.mark.slow
def test_processes_find_the_same(tmp_path: Path, tiny_config: Config, without_estimate: None) -> None:
    root = write_bodies(tmp_path / "data", 4)
    one, two = (
        check_dataset(root, config=tiny_config, device="cpu", num_workers=number, out=tmp_path / str(number))
        for number in (1, 2)
    )
    assert [case.voxel_hash for case in one.cases] == [case.voxel_hash for case in two.cases]
    assert [case.thumbnails for case in one.cases] == [case.thumbnails for case in two.cases]
    assert len(one.findings) == len(two.findings)


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_real_scans_have_nothing_wrong_but_their_number(
    tmp_path: Path, tiny_config: Config, without_estimate: None
) -> None:
    shared = Path(__file__).parents[3] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip(f"{shared} is not there")
    for name, expected in (
        ("Dataset101_Sarcoma", set()),
        ("Dataset102_ChestNodule", {"refused"}),
        ("Dataset103_AbdomenOrgans", {"no-lesion-types"}),
        ("Dataset104_CTAVessel", {"no-lesion-types"}),
    ):
        check = check_dataset(shared / name, config=tiny_config, device="cpu", out=tmp_path / name)
        errors = {finding.code for finding in check.findings if finding.severity == "error"}
        assert errors == expected, name
