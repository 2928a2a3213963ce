"""A phantom cohort is a dataset folder that the reader accepts, and that a second run completes."""

from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import image_path, open_dataset, read_case
from promptlesion.data.phantom import phantom_case, phantom_labels, phantom_spec, write_phantom_dataset
from promptlesion.data.spec import DatasetError


def test_a_written_cohort_is_read_back_voxel_for_voxel(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []

    def on_progress(num_done: int, num_wanted: int) -> None:
        reports.append((num_done, num_wanted))

    write_phantom_dataset("ccta", num_cases=2, seed=5, out=tmp_path, num_workers=2, on_progress=on_progress)
    dataset = open_dataset(tmp_path)
    assert dataset.spec == phantom_spec("ccta")
    assert dataset.labels == phantom_labels("ccta")
    assert [case.name for case in dataset.cases] == ["ccta_0000", "ccta_0001"]
    assert reports == [(0, 2), (1, 2), (2, 2)]
    image, labels = read_case(dataset, dataset.cases[1])
    expected = phantom_case("ccta", seed=5, index=1)
    assert image.array.dtype == np.int16
    assert np.array_equal(image.array, expected.image.array)
    assert np.array_equal(labels.array, expected.labels.array)
    assert np.array_equal(image.affine, expected.image.affine)


def test_a_second_run_keeps_whole_cases_and_adds_what_is_missing(tmp_path: Path) -> None:
    write_phantom_dataset("ccta", num_cases=2, seed=5, out=tmp_path)
    kept, lost = image_path(tmp_path, "ccta_0000"), image_path(tmp_path, "ccta_0001")
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    (tmp_path / "dataset.json").unlink()
    write_phantom_dataset("ccta", num_cases=2, seed=5, out=tmp_path)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content
    assert len(open_dataset(tmp_path).cases) == 2
    with pytest.raises(DatasetError, match="expected at most 1 cases, found 1 more"):
        write_phantom_dataset("ccta", num_cases=1, seed=5, out=tmp_path)
    with pytest.raises(DatasetError, match=r"expected the phantom cohort .*'seed': 6.* found .*'seed': 5"):
        write_phantom_dataset("ccta", num_cases=2, seed=6, out=tmp_path)


def test_a_folder_with_other_cases_is_refused(tmp_path: Path) -> None:
    other = image_path(tmp_path, "patient_01")
    other.parent.mkdir()
    other.write_bytes(b"scan")
    with pytest.raises(DatasetError, match="expected an empty folder or a phantom cohort, found 1 other"):
        write_phantom_dataset("abdomen", num_cases=1, seed=0, out=tmp_path)


@pytest.mark.parametrize(("num_cases", "num_workers"), [(0, 1), (1, 0)])
def test_numbers_below_one_are_refused(tmp_path: Path, num_cases: int, num_workers: int) -> None:
    with pytest.raises(ValueError, match="at least one case and one worker"):
        write_phantom_dataset("ccta", num_cases=num_cases, seed=0, out=tmp_path, num_workers=num_workers)


def test_a_cohort_without_noise_is_another_cohort(tmp_path: Path) -> None:
    write_phantom_dataset("five", num_cases=1, seed=5, out=tmp_path, is_noisy=False)
    with pytest.raises(DatasetError, match=r"expected the phantom cohort .*'version': 1}, found .*'is_noisy': False"):
        write_phantom_dataset("five", num_cases=1, seed=5, out=tmp_path)
