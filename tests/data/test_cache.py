import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data import cache as cache_module
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset, open_dataset, read_case, write_case, write_spec
from promptlesion.data.lesion_instances import find_lesions
from promptlesion.data.volume import Volume

MakeDataset = Callable[[int], Dataset]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_case_at_the_right_spacing_is_cached_bit_for_bit(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(2)
    progress: list[tuple[int, int]] = []
    cached = build_cache(dataset, tmp_path / "cache", on_progress=lambda done, total: progress.append((done, total)))
    assert progress == [(1, 2), (2, 2)]
    for case, found in zip(dataset.cases, cached, strict=True):
        image, labels = read_case(dataset, case)
        assert (found.name, found.subject) == (case.name, case.subject)
        np.testing.assert_array_equal(found.image, image.array)
        np.testing.assert_array_equal(found.labels, labels.array)
        assert (found.image.dtype, found.labels.dtype) == (np.int16, np.uint8)
        np.testing.assert_array_equal(found.affine, image.affine)
        assert list(found.lesions) == find_lesions(labels.array, dataset.lesion_labels, labels.spacing_mm)


def test_arrays_are_mapped_and_cannot_be_written_to(make_dataset: MakeDataset, tmp_path: Path) -> None:
    (case,) = build_cache(make_dataset(1), tmp_path / "cache")
    assert isinstance(case.image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        case.labels[0, 0, 0] = 1


def test_the_voxels_of_a_label_are_all_of_them_or_many(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(1)
    big = np.zeros((30, 40, 20), np.uint8)
    big[2:28, 2:38, 2:18] = 2
    big[5:7, 5:8, 4:6] = 3
    hu = np.random.default_rng(0).integers(-1000, 1000, big.shape).astype(np.int16)
    affine = np.diag([*dataset.spec.spacing_mm, 1.0])
    write_case(dataset.root, "case_000", make_volume(hu, affine), make_volume(big, affine))
    (case,) = build_cache(dataset, tmp_path / "cache")
    assert case.num_label_voxels == {2: int((big == 2).sum()), 3: 12}
    np.testing.assert_array_equal(case.label_voxels(3), np.argwhere(big == 3))
    drawn = case.label_voxels(2)
    assert drawn.shape == (4096, 3)
    assert len(np.unique(drawn, axis=0)) == 4096
    assert (big[tuple(drawn.T)] == 2).all()
    np.testing.assert_allclose(drawn.mean(axis=0), np.argwhere(big == 2).mean(axis=0), rtol=0.05)


def test_a_hundred_labels_are_found_as_one_by_one() -> None:
    labels = np.random.default_rng(0).integers(100, 230, (17, 19, 23)).astype(np.uint8)
    labels[:4], labels[4:12, :, 3:21] = 0, 7
    voxels, counts = cache_module._draw_label_voxels(labels, "case")
    assert set(counts) == set(voxels) == set(np.unique(labels)) - {0}
    for label, found in voxels.items():
        np.testing.assert_array_equal(found, np.argwhere(labels == label))
        assert counts[label] == len(found)


def make_volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(array=array, affine=affine)


def test_another_spacing_resamples(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(1)
    write_spec(dataset.spec.model_copy(update={"spacing_mm": (0.5, 1.5, 4.0)}), dataset.root / "lesions.toml")
    (case,) = build_cache(open_dataset(dataset.root), tmp_path / "cache")
    assert case.image.shape == case.labels.shape == (26, 17, 6)
    assert case.image.dtype == np.int16
    np.testing.assert_allclose(np.linalg.norm(case.affine[:3, :3], axis=0), (0.5, 1.5, 4.0))
    assert all(case.labels[lesion.center_voxel] == 3 + lesion.type_index for lesion in case.lesions)


def test_a_second_run_does_nothing_and_a_fresh_one_the_same(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(3)
    build_cache(dataset, tmp_path / "cache")
    before = times(tmp_path / "cache")
    build_cache(dataset, tmp_path / "cache")
    assert times(tmp_path / "cache") == before
    assert len(before) == 4 * 3
    build_cache(dataset, tmp_path / "fresh")
    assert contents(tmp_path / "fresh") == contents(tmp_path / "cache")


@pytest.mark.parametrize("ending", ["image.npy", "label.npy", "voxels.npz", "json"])
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_half_written_case_is_done_again(make_dataset: MakeDataset, tmp_path: Path, ending: str, damage: str) -> None:
    dataset, folder = make_dataset(2), tmp_path / "cache"
    build_cache(dataset, folder)
    whole, before = contents(folder), times(folder)
    path = folder / f"case_001.{ending}"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    build_cache(dataset, folder)
    assert contents(folder) == whole
    assert {name for name, time in times(folder).items() if time == before[name]} == {
        name for name in before if name.startswith("case_000")
    }


def test_changed_files_and_settings_are_noticed(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset, folder = make_dataset(1), tmp_path / "cache"
    build_cache(dataset, folder)
    image, labels = read_case(dataset, dataset.cases[0])
    write_case(dataset.root, "case_000", image.with_array(image.array[::-1].copy()), labels)
    os.utime(dataset.cases[0].image_path, ns=(0, 0))
    (case,) = build_cache(dataset, folder)
    np.testing.assert_array_equal(case.image, image.array[::-1])
    key = json.loads((folder / "case_000.json").read_text())["key"]
    swapped = dataset.spec.model_copy(update={"lesions": dataset.spec.lesions[::-1]})
    write_spec(swapped, dataset.root / "lesions.toml")
    (case,) = build_cache(open_dataset(dataset.root), folder)
    assert json.loads((folder / "case_000.json").read_text())["key"] != key
    assert [case.labels[lesion.center_voxel] for lesion in case.lesions] == [4, 3]


def test_a_pickled_case_is_small_and_opens_again(make_dataset: MakeDataset, tmp_path: Path) -> None:
    (case,) = build_cache(make_dataset(1), tmp_path / "cache")
    _ = case.image, case.labels, case.affine, case.lesions, case.label_voxels(2)
    content = pickle.dumps(case)
    assert len(content) < 1000
    again = pickle.loads(content)
    assert again == case == CachedCase(name="case_000", subject="case_000", folder=tmp_path / "cache")
    np.testing.assert_array_equal(again.image, case.image)
    assert again.lesions == case.lesions


def test_files_of_equal_size_and_time_are_told_apart_and_copies_are_not(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    dataset, folder = make_dataset(2), tmp_path / "cache"
    first, second = build_cache(dataset, folder)
    before, images = times(folder), [np.array(first.image), np.array(second.image)]
    paths = [path for case in dataset.cases for path in (case.image_path, case.label_path)]
    for path in paths:
        shutil.copy(path, path.with_name("copy"))
        path.with_name("copy").replace(path)
    build_cache(dataset, folder)
    assert times(folder) == before
    for here, there in (paths[0::2], paths[1::2]):
        here.rename(here.with_name("aside"))
        there.rename(here)
        here.with_name("aside").rename(there)
    for path in paths:
        os.utime(path, ns=(0, 0))
    for case, image in zip(build_cache(dataset, folder), images[::-1], strict=True):
        np.testing.assert_array_equal(case.image, image)
