"""Folders of images as people have them: whose they are, what their headers say, what segmentations are called."""

import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from promptlesion.data.dataset import open_dataset
from promptlesion.data.sources import open_source, write_source
from promptlesion.data.sources.image_files import read_image
from promptlesion.data.spec import DatasetError
from promptlesion.data.volume import VolumeError, read_volume

SHAPE = (12, 10, 8)
HU = (np.random.default_rng(0).integers(-1000, 1500, SHAPE)).astype(np.int16)
LABELS = np.zeros(SHAPE, dtype=np.uint8)
LABELS[3:9, 3:8, 2:6] = 1
LABELS[4:6, 4:6, 3:5] = 2
AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.7, 0, 30], [0, 0, 2.5, 12], [0, 0, 0, 1.0]])
SPEC = """[preprocessing]
window_hu = [-160, 240]
spacing_mm = [1, 1, 2.5]
[lesions.label_2]
label = 2
host = ["label_1"]
diameter_mm = [1, 9]
hu = [-50, 400]
"""


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, affine).to_filename(path)


def pair(folder: Path, name: str, *, offset: int = 0, ending: str = ".nii.gz") -> None:
    nifti(folder / "images" / f"{name}{ending}", HU + np.int16(offset))
    nifti(folder / "labels" / f"{name}{ending}", LABELS)


def nrrd(path: Path, array: np.ndarray, *lines: str, place: str = "") -> None:
    """Write a file with a header of one's own; the default place is that of AFFINE, in LPS."""
    kind = {"int16": "short", "uint8": "unsigned char"}[str(array.dtype)]
    place = place or (
        "space: left-posterior-superior\nspace directions: (0.8,0,0) (0,0.7,0) (0,0,2.5)\nspace origin: (-40,-30,12)"
    )
    head = f"NRRD0004\ntype: {kind}\ndimension: {array.ndim}\nsizes: {' '.join(map(str, array.shape))}\n{place}\n"
    head += "endian: little\nencoding: raw\n" + "".join(f"{line}\n" for line in lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + array.tobytes(order="F"))


def segments(**values: int) -> list[str]:
    named = [
        (f"Segment{index}_Name:={name}", f"Segment{index}_LabelValue:={value}")
        for index, (name, value) in enumerate(values.items())
    ]
    return [line for lines in named for line in lines]


def written(out: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    image, labels = (nib.load(out / part) for part in (f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz"))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    assert (image.affine == labels.affine).all()
    return np.asarray(image.dataobj), np.asarray(labels.dataobj)


def test_scans_of_a_patient_are_one_subject_and_never_on_two_sides(tmp_path: Path) -> None:
    for name in ("pat00_art", "pat00_ven", "pat01_art", "pat02_ven"):
        pair(tmp_path / "in", name)
    source = open_source(tmp_path / "in")
    assert [case.name for case in source.cases] == ["S0001_01", "S0001_02", "S0002_01", "S0003_01"]
    assert (
        "4 scans count as those of 3 subjects by their names, pat00_art.nii.gz and pat00_ven.nii.gz" in source.notes[0]
    )
    write_source(source, tmp_path / "out")
    (tmp_path / "out" / "lesions.toml").write_text(SPEC)
    assert [case.subject for case in open_dataset(tmp_path / "out").cases] == ["S0001", "S0001", "S0002", "S0003"]
    by_table = open_source(tmp_path / "in", subjects=r"_(art|ven)$")
    assert [case.name for case in by_table.cases] == ["S0001_01", "S0001_02", "S0002_01", "S0002_02"]


def test_cases_that_keep_their_names_have_subjects_beside_them(tmp_path: Path) -> None:
    for name in ("anna_1", "anna_2", "berta_1"):
        nifti(tmp_path / "in" / "imagesTr" / f"{name}_0000.nii.gz", HU)
        nifti(tmp_path / "in" / "labelsTr" / f"{name}.nii.gz", LABELS)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "label_1": 1, "label_2": 2}}
    (tmp_path / "in" / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    (tmp_path / "in" / "lesions.toml").write_text(SPEC)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    assert [case.subject for case in open_dataset(tmp_path / "out").cases] == ["S0001", "S0001", "S0002"]
    (tmp_path / "s.csv").write_text("anna_1,x\nanna_2,y\nberta_1,x\n")
    write_source(open_source(tmp_path / "in", subjects=str(tmp_path / "s.csv")), tmp_path / "out")
    assert [case.subject for case in open_dataset(tmp_path / "out").cases] == ["S0001", "S0002", "S0001"]
    assert b'"x"' not in (tmp_path / "out" / "dataset.json").read_bytes()


def test_a_scan_of_the_size_and_time_of_another_is_another(tmp_path: Path) -> None:
    for number, name in enumerate("bca"):
        if name == "a":
            write_source(open_source(tmp_path / "in"), tmp_path / "out")
        pair(tmp_path / "in", name, offset=number, ending=".nii")
        for part in ("images", "labels"):
            os.utime(tmp_path / "in" / part / f"{name}.nii", ns=(0, 0))
    assert write_source(open_source(tmp_path / "in"), tmp_path / "out", key=tmp_path / "key.csv").num_written == 3
    for case, offset in (("S0001_01", 2), ("S0002_01", 0), ("S0003_01", 1)):
        np.testing.assert_array_equal(written(tmp_path / "out", case)[0], HU + offset)
    assert write_source(open_source(tmp_path / "in"), tmp_path / "out").num_written == 0


def test_a_folder_that_was_copied_is_not_converted_anew(tmp_path: Path) -> None:
    pair(tmp_path / "in", "a")
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    shutil.copytree(tmp_path / "in", tmp_path / "again", copy_function=shutil.copyfile)
    assert write_source(open_source(tmp_path / "again"), tmp_path / "out").num_kept == 1


@pytest.mark.parametrize(
    ("unit", "scale"), [("microns", 1e3), ("um", 1e3), ("µm", 1e3), ("mm", 1.0), ("cm", 0.1), ("m", 1e-3), ("", 1.0)]
)
def test_units_of_a_nrrd_header_count(tmp_path: Path, unit: str, scale: float) -> None:
    rows = " ".join(
        f"({','.join(str(scale * side) for side in row)})" for row in ((0.8, 0, 0), (0, 0.7, 0), (0, 0, 2.5))
    )
    origin = ",".join(str(scale * at) for at in (-40, -30, 12))
    place = f"space: left-posterior-superior\nspace directions: {rows}\nspace origin: ({origin})"
    for part, array in (("images", HU), ("labels", LABELS)):
        nrrd(tmp_path / "in" / part / "a.nrrd", array, f'space units: "{unit}" "{unit}" "{unit}"', place=place)
    done = write_source(open_source(tmp_path / "in"), tmp_path / "out")
    np.testing.assert_array_equal(written(tmp_path / "out", "S0001_01")[0], HU)
    assert any("unit converted" in note for note in done.notes) == (scale != 1.0)


def test_an_unknown_unit_is_refused_and_a_place_that_is_none_is_said(tmp_path: Path) -> None:
    nrrd(tmp_path / "a.nrrd", HU, 'space units: "furlong" "mm" "mm"')
    with pytest.raises(VolumeError, match=r'a.nrrd: expected units of length, found "furlong"'):
        read_image(tmp_path / "a.nrrd")
    nrrd(tmp_path / "b.nrrd", HU, place="spacings: 0.8 0.7 2.5")
    assert list(read_image(tmp_path / "b.nrrd").notes) == ["no-affine"]
    nrrd(tmp_path / "c.nrrd", HU, 'units: "cm" "cm" "mm"', place="spacings: 0.8 0.7 2.5")
    np.testing.assert_allclose(read_image(tmp_path / "c.nrrd").spacing_mm, (8.0, 7.0, 2.5), rtol=1e-6)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_voxels_that_no_ct_has_are_refused(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(HU.T)
    image.SetSpacing((0.0008, 0.0007, 0.0025))
    for part in ("images", "labels"):
        (tmp_path / "in" / part).mkdir(parents=True)
        sitk.WriteImage(image if part == "images" else image * 0, str(tmp_path / "in" / part / f"a{ending}"))
    with pytest.raises(ValueError, match=rf"images/a{ending}: expected voxels of 0.05 to 15 mm, found 0.0008 x 0.0007"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_last_axis_of_length_1_is_left_away_in_any_format(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(HU.T)]), str(tmp_path / f"a{ending}"))
    assert read_image(tmp_path / f"a{ending}").shape == SHAPE


def cropped(path: Path, labels: np.ndarray, low: tuple[int, int, int], *lines: str) -> None:
    """Write part of a label map, from a voxel that may lie outside the scan."""
    origin = np.array([-40, -30, 12]) + np.array([0.8, 0.7, 2.5]) * low
    place = "space: left-posterior-superior\nspace directions: (0.8,0,0) (0,0.7,0) (0,0,2.5)\n"
    nrrd(path, labels, *lines, place=place + f"space origin: ({','.join(map(str, origin))})")


def test_slicers_segmentations_are_padded_and_told_by_name(tmp_path: Path) -> None:
    """Each file counts its segments as it likes; names are what they have in common."""
    for name in "ab":
        nrrd(tmp_path / "in" / "images" / f"{name}.nrrd", HU)
    box = LABELS[3:9, 3:8, 2:6]
    swapped = np.array([0, 2, 1], dtype=np.uint8)[box]
    cropped(tmp_path / "in" / "labels" / "a.seg.nrrd", box, (3, 3, 2), *segments(liver=1, liver_tumor=2))
    cropped(tmp_path / "in" / "labels" / "b.seg.nrrd", swapped, (3, 3, 2), *segments(liver_tumor=1, liver=2))
    source = open_source(tmp_path / "in")
    assert source.labels == {"background": 0, "liver": 1, "liver_tumor": 2}
    write_source(source, tmp_path / "out")
    for case in ("S0001_01", "S0002_01"):
        np.testing.assert_array_equal(written(tmp_path / "out", case)[1], LABELS)
    write_source(open_source(tmp_path / "in", names={"liver": 7, "liver_tumor": 3}), tmp_path / "named")
    np.testing.assert_array_equal(written(tmp_path / "named", "S0001_01")[1], np.array([0, 7, 3])[LABELS])
    with pytest.raises(
        DatasetError, match=r"a.seg.nrrd: expected segments called background, liver, found liver_tumor"
    ):
        write_source(open_source(tmp_path / "in", names={"liver": 1}), tmp_path / "less")


def test_segments_whose_names_differ_in_a_sign_stay_apart_from_file_to_file(tmp_path: Path) -> None:
    for name, first, second in (("a", "LN+", "liver"), ("b", "LN-", "печень")):
        nrrd(tmp_path / "in" / "images" / f"{name}.nrrd", HU)
        lines = [
            f"Segment0_Name:={first}",
            "Segment0_LabelValue:=1",
            f"Segment1_Name:={second}",
            "Segment1_LabelValue:=2",
        ]
        nrrd(tmp_path / "in" / "labels" / f"{name}.seg.nrrd", LABELS, *lines)
    source = open_source(tmp_path / "in")
    assert source.labels == {"background": 0, "liver": 1, "LN_1": 2, "LN_2": 3, "печень": 4}
    assert any("'LN+' is called LN_1" in note for note in source.notes)
    write_source(source, tmp_path / "out")
    for case, table in (("S0001_01", [0, 2, 1]), ("S0002_01", [0, 3, 4])):
        np.testing.assert_array_equal(written(tmp_path / "out", case)[1], np.array(table)[LABELS])


def test_a_segmentation_may_reach_beyond_the_scan_but_its_labels_may_not(tmp_path: Path) -> None:
    nrrd(tmp_path / "in" / "images" / "a.nrrd", HU)
    padded = np.pad(LABELS, 2)
    cropped(tmp_path / "in" / "labels" / "a.seg.nrrd", padded, (-2, -2, -2), *segments(a=1, b=2))
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    np.testing.assert_array_equal(written(tmp_path / "out", "S0001_01")[1], LABELS)
    padded[0, 0, 0] = 1
    cropped(tmp_path / "in" / "labels" / "a.seg.nrrd", padded, (-2, -2, -2), *segments(a=1, b=2))
    with pytest.raises(DatasetError, match=r"a.seg.nrrd: expected labels within the CT, found some beyond it"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out2")
    cropped(tmp_path / "in" / "labels" / "a.seg.nrrd", LABELS, (13, 13, 13), *segments(a=1, b=2))
    with pytest.raises(DatasetError, match=r"a.seg.nrrd: expected labels within the CT, found some beyond it"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out2")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (segments(liver=1), r"expected a segment for every value, found none for \[2\]"),
        (
            ["Segment0_Name:=a", "Segment0_LabelValue:=1", "Segment1_Name:=b", "Segment1_LabelValue:=1"],
            "of their own names and values",
        ),
        (
            ["Segment0_Name:=+", "Segment0_LabelValue:=1", "Segment1_Name:=a_b", "Segment1_LabelValue:=2"],
            "of their own names and values",
        ),
    ],
)
def test_segments_that_are_not_told_apart_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    nrrd(tmp_path / "in" / "images" / "a.nrrd", HU)
    nrrd(tmp_path / "in" / "labels" / "a.seg.nrrd", LABELS, *lines)
    with pytest.raises(ValueError, match=rf"a.seg.nrrd: .*{message}"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out")


def test_segments_with_and_without_names_do_not_mix(tmp_path: Path) -> None:
    for name in "ab":
        nrrd(tmp_path / "in" / "images" / f"{name}.nrrd", HU)
        nrrd(tmp_path / "in" / "labels" / f"{name}.seg.nrrd", LABELS, *(segments(x=1, y=2) if name == "a" else ()))
    with pytest.raises(DatasetError, match=r"b.seg.nrrd: expected segments with names, as .*a.seg.nrrd has them"):
        open_source(tmp_path / "in")


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("img", "label"), ("img0001", "label0001")),
        (("Images", "Labels"), ("P01_CT2", "P01_Seg2")),
        (("imgs", "masks"), ("volume12", "segmentation12")),
    ],
)
def test_names_that_differ_in_the_word_for_what_they_are_match(
    tmp_path: Path, folders: tuple[str, str], names: tuple[str, str]
) -> None:
    nifti(tmp_path / "in" / folders[0] / f"{names[0]}.nii.gz", HU)
    nifti(tmp_path / "in" / folders[1] / f"{names[1]}.nii.gz", LABELS)
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    np.testing.assert_array_equal(written(tmp_path / "out", "S0001_01")[1], LABELS)


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        for ending in (".hdr", ".img"):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / f"a{ending}").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"files of none.*: 2 .hdr, 2 .img; pairs of .hdr and .img are not read"):
        open_source(tmp_path)
    with pytest.raises(DatasetError, match=r"images: expected CTs .*, found 1 .hdr, 1 .img; pairs"):
        open_source(tmp_path / "images", label_folder=tmp_path / "labels")


def nnunet(folder: Path, **changes: object) -> None:
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "label_1": 1, "label_2": 2}}
    folder.mkdir(exist_ok=True)
    text = json.dumps({**content, "file_ending": ".nii.gz", **changes})
    (folder / "dataset.json").write_text("\ufeff" + text, encoding="utf-8")


def test_files_that_dataset_json_names_are_read_where_they_lie(tmp_path: Path) -> None:
    nifti(tmp_path / "elsewhere" / "x_ct.nii.gz", HU)
    nifti(tmp_path / "in" / "x_seg.nii.gz", LABELS)
    entry = {"images": ["../elsewhere/x_ct.nii.gz"], "label": "x_seg.nii.gz"}
    nnunet(tmp_path / "in", dataset={"case_7": entry})
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    np.testing.assert_array_equal(written(tmp_path / "out", "case_7")[1], LABELS)
    nnunet(tmp_path / "in", dataset={"case_7": {**entry, "images": ["a", "b"]}})
    with pytest.raises(DatasetError, match=r"dataset.json: expected one file in `images` .* for 'case_7'"):
        open_source(tmp_path / "in")
    nnunet(tmp_path / "in", dataset={"case_7": {**entry, "label": "gone.nii.gz"}})
    with pytest.raises(DatasetError, match=r"case_7: expected the file .*gone.nii.gz, found none"):
        write_source(open_source(tmp_path / "in"), tmp_path / "out2")


def test_a_leftover_key_of_version_1_does_not_make_a_decathlon_task(tmp_path: Path) -> None:
    nifti(tmp_path / "in" / "imagesTr" / "a_0000.nii.gz", HU)
    nifti(tmp_path / "in" / "labelsTr" / "a.nii.gz", LABELS)
    nnunet(tmp_path / "in", training=[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}])
    assert open_source(tmp_path / "in").layout == "nnunet"


def test_a_split_that_names_a_refused_case_is_said_and_named(tmp_path: Path) -> None:
    for name in "abc":
        nifti(tmp_path / "in" / "imagesTr" / f"{name}_0000.nii.gz", HU if name != "b" else HU / 1000.0)
        nifti(tmp_path / "in" / "labelsTr" / f"{name}.nii.gz", LABELS)
    nnunet(tmp_path / "in")
    (tmp_path / "in" / "splits_final.json").write_text('\ufeff[{"train": ["a", "b"], "val": ["c"]}]', encoding="utf-8")
    done = write_source(open_source(tmp_path / "in"), tmp_path / "out", skips_refused=True)
    assert "splits_final.json names b, left out here: take it out of there too" in done.notes


def test_labels_that_are_whole_but_for_rounding_are_whole(tmp_path: Path) -> None:
    pair(tmp_path / "in", "a")
    nifti(tmp_path / "in" / "labels" / "a.nii.gz", LABELS * np.float32(1.0000001))
    write_source(open_source(tmp_path / "in"), tmp_path / "out")
    label_map = read_volume(tmp_path / "out" / "labelsTr" / "S0001_01.nii.gz")
    assert label_map.array.dtype == np.uint8
    np.testing.assert_array_equal(written(tmp_path / "out", "S0001_01")[1], LABELS)


@pytest.mark.parametrize("num_axes", ["93", "2", "three"])
def test_a_metaimage_of_no_three_axes_is_refused_before_itk_crashes(tmp_path: Path, num_axes: str) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(HU.T), str(path))
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = " + num_axes.encode()))
    with pytest.raises(VolumeError, match=rf"a.mha: expected a 3-D volume, found NDims = {num_axes}"):
        read_image(path)
