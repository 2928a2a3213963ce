"""Names of structures stay what they are, in any script, and stay apart."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from promptlesion.data.sources import open_source, parse_label_names
from promptlesion.data.sources.label_map import is_lesion_name, label_name, label_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("опухоль печени", "опухоль_печени"),
        ("肝 肿瘤", "肝_肿瘤"),
        ("यकृत", "यकृत"),
        ("ตับ", "ตับ"),
        ("כבד", "כבד"),
        ("La\u0308sion", "Läsion"),
        ("ＧＴＶ", "GTV"),
        (" Liver (left) ", "Liver_left"),
        ("+", ""),
    ],
)
def test_names_keep_their_letters(text: str, name: str) -> None:
    assert label_name(text) == name


def test_no_two_titles_share_a_name_and_none_takes_that_of_another() -> None:
    titles = ["LN+", "LN-", "LN_1", "+", "?", "liver", "GTV²", "GTV2"]
    names = label_names(titles)
    assert len(set(names.values())) == len(titles)
    assert (names["LN_1"], names["liver"]) == ("LN_1", "liver")
    assert names == label_names(reversed(titles))


@pytest.mark.parametrize(
    "name", ["опухоль", "肝肿瘤", "肝腫瘍", "囊肿", "Läsion", "lésion", "lesión", "GTV-1", "bladder_tumour"]
)
def test_lesions_are_known_by_name_in_several_languages(name: str) -> None:
    assert is_lesion_name(name)
    assert not any(map(is_lesion_name, ("печень", "胆囊", "肝脏", "bladder", "Leber")))


def test_label_names_may_be_said_in_any_script() -> None:
    assert parse_label_names(["печень=1", "肝肿瘤=2", "La\u0308sion=3"]) == {"печень": 1, "肝肿瘤": 2, "Läsion": 3}


def test_masks_whose_names_would_be_one_stay_apart(tmp_path: Path) -> None:
    """Of an AbdomenAtlas folder, where each file is a structure."""
    masks = {"LN+": np.zeros((6, 5, 4), np.uint8), "LN-": np.zeros((6, 5, 4), np.uint8)}
    masks["LN+"][1, 1, 1] = masks["LN-"][3, 3, 3] = 1
    (tmp_path / "a" / "segmentations").mkdir(parents=True)
    nib.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.eye(4)).to_filename(tmp_path / "a" / "ct.nii.gz")
    for name, mask in masks.items():
        nib.Nifti1Image(mask, np.eye(4)).to_filename(tmp_path / "a" / "segmentations" / f"{name}.nii.gz")
    source = open_source(tmp_path)
    assert source.labels == {"background": 0, "LN_1": 1, "LN_2": 2}
    assert [note.split(":")[0] for note in source.notes] == ["'LN+' is called LN_1", "'LN-' is called LN_2"]
    assert np.array_equal(source.cases[0].read().labels.array, masks["LN+"] + 2 * masks["LN-"])
