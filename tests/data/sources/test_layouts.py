"""Public layouts: found out by themselves, converted with their labels, refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest

from promptlesion.cli.dataset import Layout as NamedLayout
from promptlesion.data.dataset import open_dataset, write_spec
from promptlesion.data.sources import Layout, open_source, parse_label_names, write_source
from promptlesion.data.sources.layouts import detect_layout
from promptlesion.data.spec import DatasetError, DatasetSpec, LesionType
from promptlesion.data.volume import read_volume


@pytest.fixture
def labels(hu: np.ndarray) -> np.ndarray:
    found = (hu > -500).astype(np.uint8)
    found[6:8, 5:7, 3] = 2
    return found


@pytest.fixture
def affine() -> np.ndarray:
    """Axes in another order and oblique, but at right angles."""
    angle = np.radians(12.0)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    directions = turn @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = directions * (0.9, 0.7, 2.4)
    affine[:3, 3] = (-4.0, 30.0, -200.0)
    return affine


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
        return
    import SimpleITK

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)


def check(out: Path, name: str, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    image = nib.load(out / "imagesTr" / f"{name}_0000.nii.gz")
    found = nib.load(out / "labelsTr" / f"{name}.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), hu)
    assert np.array_equal(np.asarray(found.dataobj), labels)
    assert np.allclose(image.affine, affine, atol=1e-5)
    assert np.array_equal(found.affine, image.affine)


def test_the_command_line_knows_every_layout() -> None:
    assert list(get_args(NamedLayout)) == [layout.value for layout in Layout]


def write_decathlon(
    folder: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, changes: dict[str, Any]
) -> None:
    for index in (0, 12):
        save(folder / "imagesTr" / f"liver_{index}.nii.gz", hu.astype(np.float32), affine)
        save(folder / "labelsTr" / f"liver_{index}.nii.gz", labels.astype(np.float32), affine)
        (folder / "imagesTr" / f"._liver_{index}.nii.gz").write_bytes(b"\0\5\26\7")
    training = [
        {"image": f"./imagesTr/liver_{index}.nii.gz", "label": f"./labelsTr/liver_{index}.nii.gz"} for index in (0, 12)
    ]
    content = {
        "name": "Liver",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": training,
        "test": ["./imagesTs/liver_1.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content | changes))


def test_a_decathlon_task(tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    write_decathlon(tmp_path / "Task03", hu, labels, affine, {})
    assert detect_layout(tmp_path / "Task03") is Layout.DECATHLON
    source = open_source(tmp_path / "Task03")
    assert source.labels == {"background": 0, "liver": 1, "cancer": 2}
    assert source.notes == ("1 test scan(s) left out: they have no labels",)
    assert write_source(source, tmp_path / "out").num_written == 2
    for name in ("liver_0", "liver_12"):
        check(tmp_path / "out", name, hu, labels, affine)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, "expected one modality, CT, found .*4-D with a channel each"),
        ({"modality": {"0": "MRI"}}, "expected the modality CT, which has Hounsfield units, found 'MRI'"),
        ({"labels": {"background": 0}}, "expected `labels`, names by value"),
        ({"training": []}, "expected cases in `training`"),
        ({"training": ["a"]}, "expected `image` and `label` for every case"),
    ],
)
def test_decathlon_tasks_that_are_refused(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, changes: dict[str, Any], message: str
) -> None:
    write_decathlon(tmp_path / "in", hu, labels, affine, changes)
    with pytest.raises(DatasetError, match=f"in/dataset.json: {message}"):
        open_source(tmp_path / "in")


def test_a_listed_file_that_is_missing_is_named(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    write_decathlon(tmp_path / "in", hu, labels, affine, {})
    (tmp_path / "in" / "labelsTr" / "liver_12.nii.gz").unlink()
    source = open_source(tmp_path / "in")
    with pytest.raises(DatasetError, match=r"liver_12: expected the file .*labelsTr/liver_12.nii.gz, found none"):
        write_source(source, tmp_path / "out")
    assert write_source(source, tmp_path / "out", skips_refused=True).num_written == 1


def test_kits(tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    for index in (0, 7):
        save(tmp_path / "kits" / f"case_{index:05d}" / "imaging.nii.gz", hu, affine)
    save(tmp_path / "kits" / "case_00007" / "segmentation.nii.gz", labels.astype(np.int32), affine)
    assert detect_layout(tmp_path / "kits") is Layout.KITS
    source = open_source(tmp_path / "kits")
    assert source.notes == ("1 case(s) without a segmentation left out, case_00000, …",)
    write_source(source, tmp_path / "out")
    check(tmp_path / "out", "case_00007", hu, labels, affine)
    names = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert names == {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}


def test_abdomen_atlas(tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> None:
    case = tmp_path / "atlas" / "BDMAP_00000012"
    save(case / "ct.nii.gz", hu, affine)
    # the lesion's file comes before its organ's, and the organ's covers it
    save(case / "segmentations" / "cyst_of_liver.nii.gz", (labels == 2).astype(np.uint8), affine)
    save(case / "segmentations" / "liver.nii.gz", (labels > 0).astype(np.float64), affine)
    save(case / "combined_labels.nii.gz", labels, affine)
    save(case / "segmentations" / "spleen.nii.gz", np.zeros_like(labels), affine)
    other = tmp_path / "atlas" / "BDMAP_00000013"
    save(other / "ct.nii.gz", hu, affine)
    save(other / "segmentations" / "liver.nii.gz", (labels > 0).astype(np.uint8), affine)
    assert detect_layout(tmp_path / "atlas") is Layout.ABDOMEN_ATLAS
    source = open_source(tmp_path / "atlas")
    assert source.labels == {"background": 0, "liver": 1, "spleen": 2, "cyst_of_liver": 3}
    assert source.notes == ("spleen is there in 1 of 2 cases", "cyst_of_liver is there in 1 of 2 cases")
    write_source(source, tmp_path / "out")
    check(tmp_path / "out", "BDMAP_00000012", hu, np.array([0, 1, 3], dtype=np.uint8)[labels], affine)
    check(tmp_path / "out", "BDMAP_00000013", hu, (labels > 0).astype(np.uint8), affine)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
def test_an_nnunet_dataset_of_another_format(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, ending: str
) -> None:
    folder = tmp_path / "in"
    save(folder / "imagesTr" / f"a_0000{ending}", hu, affine)
    save(folder / "labelsTr" / f"a{ending}", labels, affine)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1, "tumor": 2}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    lesion = LesionType(name="tumor", label=2, host=("organ",), diameter_mm=(2.0, 5.0), hu=(0.0, 900.0))
    write_spec(
        DatasetSpec(window_hu=(-200.0, 300.0), spacing_mm=(1.0, 1.0, 1.0), lesions=(lesion,)), folder / "lesions.toml"
    )
    assert detect_layout(folder) is Layout.NNUNET
    write_source(open_source(folder), tmp_path / "out")
    check(tmp_path / "out", "a", hu, labels, affine)
    assert [case.name for case in open_dataset(tmp_path / "out").cases] == ["a"]


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nii.gz"])
def test_a_pair_of_folders(tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, ending: str) -> None:
    for number in (1, 2):
        save(tmp_path / "ct" / f"volume-{number}{ending}", hu + number, affine)
        save(
            tmp_path / "masks" / f"segmentation-{number}{ending}",
            labels.astype(np.int64 if ".n" in ending else np.int32),
            affine,
        )
    source = open_source(
        tmp_path / "ct", label_folder=tmp_path / "masks", names=parse_label_names(["liver=1", "lesion=2"])
    )
    assert source.labels == {"background": 0, "liver": 1, "lesion": 2}
    assert write_source(source, tmp_path / "out", num_workers=2).num_written == 2
    for number in (1, 2):
        check(tmp_path / "out", f"S000{number}_01", hu + number, labels, affine)
    assert open_source(tmp_path / "ct", label_folder=tmp_path / "masks").labels == {
        "background": 0,
        "label_1": 1,
        "label_2": 2,
    }


def test_a_pair_of_folders_is_found_out_and_matched(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(tmp_path / "in" / "images" / "anna_ct.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "anna_seg.nii.gz", labels, affine)
    assert detect_layout(tmp_path / "in") is Layout.FOLDERS
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", "S0001_01", hu, labels, affine)
    save(tmp_path / "in" / "images" / "berta_ct.nii.gz", hu, affine)
    with pytest.raises(
        DatasetError, match=r"images/berta_ct.nii.gz: expected a label map of the same name in .*labels"
    ):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    conversion = write_source(open_source(tmp_path / "in"), tmp_path / "out", skips_refused=True)
    assert (conversion.num_written, conversion.num_kept, len(conversion.refused)) == (0, 1, 1)
    save(tmp_path / "in" / "labels" / "anna-mask.nii.gz", labels, affine)
    with pytest.raises(DatasetError, match=r"anna_seg.nii.gz: expected one file a case, found anna-mask.nii.gz too"):
        open_source(tmp_path / "in")


def test_values_without_a_name_are_refused(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", labels, affine)
    source = open_source(tmp_path / "in", names={"liver": 1})
    with pytest.raises(
        DatasetError, match=r"labels/a.nii.gz: expected the label values .*, found \[2\]; name them with --label"
    ):
        write_source(source, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu, labels, affine: (hu, labels + 0.5, affine), "expected whole label values from 0 to 255, found 0.5"),
        (lambda hu, labels, affine: (hu, labels.astype(np.int16) - 1, affine), "whole label values .*, found -1"),
        (lambda hu, labels, affine: (hu / 1000.0, labels, affine), "expected HU, .* scaled or standardised"),
        (lambda hu, labels, affine: (hu, labels[:-1], affine), "label shape .* differs from the CT's"),
        (lambda hu, labels, affine: (hu, labels, affine @ np.diag([1.0, 1.2, 1.0, 1.0])), "label spacing .* differs"),
        (lambda hu, labels, affine: (np.stack([hu, hu], -1), labels, affine), "expected a 3-D volume"),
        (lambda hu, labels, affine: (np.where(hu > 0, np.nan, hu), labels, affine), "expected finite HU"),
    ],
)
def test_scans_that_are_refused_by_name(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray, change: Callable[..., Any], message: str
) -> None:
    image, label_map, label_affine = change(hu, labels, affine)
    save(tmp_path / "in" / "images" / "a.nii.gz", image, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", label_map, label_affine)
    with pytest.raises(ValueError, match=rf"in/(images|labels)/a.nii.gz: .*{message}"):
        write_source(open_source(tmp_path / "in", names={"a": 1, "b": 2}), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_a_sheared_affine_is_refused(tmp_path: Path, hu: np.ndarray, labels: np.ndarray) -> None:
    sheared = np.array([[1.0, 0.0, 0.4, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, sheared)
    save(tmp_path / "in" / "labels" / "a.nii.gz", labels, sheared)
    with pytest.raises(
        DatasetError, match=r"a.nii.gz: expected axes at right angles, .* sheared affine \(cosine 0.196"
    ):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_a_label_header_that_is_rounded_otherwise_is_the_same_grid(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    rounded = affine.copy()
    rounded[:3, 3] += 0.03
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", labels, rounded)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", "S0001_01", hu, labels, affine)


def test_damaged_files_of_other_formats_are_named(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(tmp_path / "in" / "images" / "a.nrrd", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nrrd", labels, affine)
    path = tmp_path / "in" / "images" / "a.nrrd"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"images/a.nrrd: expected a whole image, found a damaged"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_a_folder_that_holds_something_else_is_refused(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", labels, affine)
    source = open_source(tmp_path / "in")
    save(tmp_path / "other" / "imagesTr" / "x_0000.nii.gz", hu, affine)
    with pytest.raises(DatasetError, match=r"--out .*other: expected an empty folder or one that `prepare` wrote"):
        write_source(source, tmp_path / "other")
    write_source(source, tmp_path / "out")
    save(tmp_path / "out" / "imagesTr" / "x_0000.nii.gz", hu, affine)
    with pytest.raises(DatasetError, match=r"expected cases of this source only, found 1 more \(x, …\)"):
        write_source(source, tmp_path / "out")


def test_an_interrupted_conversion_goes_on(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    for name in "abc":
        save(tmp_path / "in" / "images" / f"{name}.nii.gz", hu, affine)
        save(tmp_path / "in" / "labels" / f"{name}.nii.gz", labels if name != "b" else labels[1:], affine)
    with pytest.raises(DatasetError, match="label shape"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    save(tmp_path / "in" / "labels" / "b.nii.gz", labels, affine)
    reports: list[tuple[int, int]] = []

    def on_progress(num_done: int, num_cases: int) -> None:
        reports.append((num_done, num_cases))

    done = write_source(open_source(tmp_path / "in"), tmp_path / "out", on_progress=on_progress)
    assert (done.num_written, done.num_kept) == (2, 1)
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 3


def test_a_folder_of_no_known_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 200)
    with pytest.raises(DatasetError, match=r"expected DICOM files, a dataset.json .*found 1 files of none"):
        open_source(tmp_path)
    with pytest.raises(DatasetError, match="expected a folder of scans, found none"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="expected a folder of scans, found a file"):
        open_source(tmp_path / "notes.txt")


@pytest.mark.parametrize("layout", [layout for layout in Layout if layout is not Layout.FOLDERS])
def test_a_layout_that_is_said_but_not_there_is_refused(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        open_source(tmp_path, layout=layout)
    with pytest.raises(DatasetError, match="--labels: expected with the layout folders alone"):
        open_source(tmp_path, layout=layout, label_folder=tmp_path)


@pytest.mark.parametrize(
    "texts", [["a"], ["=1"], ["a=0"], ["a=256"], ["a=x"], ["a b=1"], ["a=1", "b=1"], ["a=1", "a=2"]]
)
def test_wrong_label_names_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=f"--label {texts[-1]}: expected"):
        parse_label_names(texts)


def test_written_volumes_keep_their_axis_order(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    """NRRD as ITK wrote it, read here: the same world position for the same voxel."""
    save(tmp_path / "in" / "images" / "a.nrrd", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nrrd", labels, affine)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    volume = read_volume(tmp_path / "out" / "imagesTr" / "S0001_01_0000.nii.gz")
    brightest = np.argwhere(hu == hu.max())[0]
    found = np.argwhere(volume.array == hu.max())[0]
    assert np.allclose(affine @ (*brightest, 1), volume.affine @ (*found, 1), atol=1e-4)


def test_the_scans_of_a_patient_stay_one_subject(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    """Though nobody wrote a pattern into `lesions.toml`: `dataset.json` knows it."""
    for name in ("a", "b"):
        save(tmp_path / "in" / "images" / f"{name}.nii.gz", hu, affine)
        save(tmp_path / "in" / "labels" / f"{name}.nii.gz", labels, affine)
    out = tmp_path / "out"
    write_source(open_source(tmp_path / "in"), out)
    lesion = LesionType(name="tumor", label=2, host=("label_1",), diameter_mm=(2.0, 5.0), hu=(0.0, 900.0))
    spec = DatasetSpec(window_hu=(-200.0, 300.0), spacing_mm=(1.0, 1.0, 1.0), lesions=(lesion,))
    write_spec(spec, out / "lesions.toml")
    assert [case.subject for case in open_dataset(out).cases] == ["S0001", "S0002"]
    write_spec(spec.model_copy(update={"subject_pattern": r"^(S\d+_\d+)$"}), out / "lesions.toml")
    assert [case.subject for case in open_dataset(out).cases] == ["S0001_01", "S0002_01"]
    content = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps(content | {"subject_pattern": "("}))
    write_spec(spec, out / "lesions.toml")
    with pytest.raises(DatasetError, match=r"dataset.json: expected `subject_pattern`, a regular expression"):
        open_dataset(out)


def test_what_a_killed_run_left_is_taken_up(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    """Killed while the first case was written, before its CT or in it: nothing there is another dataset."""
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", labels, affine)
    out = tmp_path / "out"
    write_source(open_source(tmp_path / "in"), out)
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "dataset.json").unlink()
    (out / "imagesTr" / "S0001_01_0000.nii.gz").rename(out / "imagesTr" / ".partial.S0001_01_0000.nii.gz")
    assert write_source(open_source(tmp_path / "in"), out).num_written == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole


def test_a_case_that_was_converted_and_is_refused_now_is_removed(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    for name in "ab":
        save(tmp_path / "in" / "images" / f"{name}.nii.gz", hu, affine)
        save(tmp_path / "in" / "labels" / f"{name}.nii.gz", labels, affine)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "in" / "labels" / "a.nii.gz").unlink()
    write_source(open_source(tmp_path / "in"), tmp_path / "out", skips_refused=True)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["numTraining"] == 1
    for folder in ("imagesTr", "labelsTr", "prepared"):
        (left,) = (tmp_path / "out" / folder).iterdir()
        assert left.name.startswith("S0002_01")


def test_files_that_went_along_and_were_changed_since_stay_changed(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    for name in "ab":
        save(tmp_path / "in" / "imagesTr" / f"{name}_0000.nii.gz", hu, affine)
        save(tmp_path / "in" / "labelsTr" / f"{name}.nii.gz", labels, affine)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "in" / "lesions.toml").write_text("theirs")
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    assert (tmp_path / "out" / "lesions.toml").read_text() == "theirs"
    (tmp_path / "out" / "lesions.toml").write_text("mine")
    save(tmp_path / "in" / "imagesTr" / "a_0000.nii.gz", hu + np.int16(1), affine)
    assert write_source(open_source(tmp_path / "in"), tmp_path / "out").num_written == 1
    assert (tmp_path / "out" / "lesions.toml").read_text() == "mine"


def test_cases_of_the_atlas_without_a_ct_or_structures_are_said(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    for name in ("BDMAP_1", "BDMAP_2"):
        save(tmp_path / name / "ct.nii.gz", hu, affine)
    for name in ("BDMAP_2", "BDMAP_3"):
        save(tmp_path / name / "segmentations" / "liver.nii.gz", labels, affine)
    source = open_source(tmp_path)
    assert [case.name for case in source.cases] == ["BDMAP_2"]
    assert source.notes == ("2 case(s) without a CT or without structures left out, BDMAP_1, …",)


def test_labels_that_a_header_rescales_are_whole(
    tmp_path: Path, hu: np.ndarray, labels: np.ndarray, affine: np.ndarray
) -> None:
    save(tmp_path / "in" / "images" / "a.nii.gz", hu, affine)
    save(tmp_path / "in" / "labels" / "a.nii.gz", (labels * 1.00001).astype(np.float32), affine)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    check(tmp_path / "out", "S0001_01", hu, labels, affine)
