import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, open_dataset
from promptlesion.data.volume import read_volume, write_volume
from promptlesion.segmentation import predict as module
from promptlesion.segmentation.predict import RECORD_FILE, prediction_path, segment_dataset
from promptlesion.training.run import Run


def first(dataset: Dataset, num_cases: int) -> Dataset:
    return dataset.select(case.name for case in dataset.cases[:num_cases])


def times(folder: Path, names: list[str]) -> dict[str, int]:
    return {name: prediction_path(folder, name).stat().st_mtime_ns for name in names}


@pytest.fixture(scope="module")
def done(trained_run: Run, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictions") / "out"
    segment_dataset(trained_run.folder, first(dataset, 2), folder, device="cpu")
    return folder


def test_predictions_lie_on_their_scans_with_the_datasets_values(done: Path, dataset: Dataset) -> None:
    for case in dataset.cases[:2]:
        scan, prediction = read_volume(case.image_path), read_volume(prediction_path(done, case.name))
        assert prediction.array.dtype == np.uint8
        assert prediction.shape == scan.shape
        assert np.array_equal(prediction.affine, scan.affine)
        assert set(np.unique(prediction.array)) <= set(dataset.labels.values())
        truth = read_volume(case.label_path).array
        assert (prediction.array == truth).mean() > 0.9


def test_finished_cases_are_kept_and_missing_ones_are_made(
    done: Path, trained_run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(done, tmp_path / "out"))
    before = times(folder, ["case_0", "case_1"])
    prediction_path(folder, "case_1").unlink()
    seen: list[tuple[int, int]] = []
    segment_dataset(
        trained_run.folder,
        first(dataset, 3),
        folder,
        device="cpu",
        on_progress=lambda *counts: seen.append(counts),
    )
    after = times(folder, ["case_0", "case_1", "case_2"])
    assert after["case_0"] == before["case_0"]
    assert after["case_1"] > before["case_1"]
    assert prediction_path(folder, "case_1").read_bytes() == prediction_path(done, "case_1").read_bytes()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"case_{index}.nii.gz" for index in range(3)),
        RECORD_FILE,
    ]


def test_predictions_made_without_mirroring_are_made_again_with_it(
    done: Path, trained_run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(done, tmp_path / "out"))
    before = times(folder, ["case_0"])
    segment_dataset(trained_run.folder, first(dataset, 1), folder, device="cpu", is_mirrored=True)
    mirrored = times(folder, ["case_0"])
    assert mirrored["case_0"] > before["case_0"]
    assert not prediction_path(folder, "case_1").exists()
    assert json.loads((folder / RECORD_FILE).read_text())["is_mirrored"]
    segment_dataset(trained_run.folder, first(dataset, 1), folder, device="cpu", is_mirrored=True)
    assert times(folder, ["case_0"]) == mirrored


def test_predictions_of_another_model_are_made_again(
    done: Path, trained_run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(done, tmp_path / "out"))
    record = json.loads((folder / RECORD_FILE).read_text())
    (folder / RECORD_FILE).write_text(json.dumps({**record, "weights_sha256": "another"}))
    before = times(folder, ["case_0"])
    segment_dataset(trained_run.folder, first(dataset, 1), folder, device="cpu")
    assert times(folder, ["case_0"])["case_0"] > before["case_0"]
    assert not prediction_path(folder, "case_1").exists()


def test_label_maps_of_other_origin_are_not_replaced(trained_run: Run, dataset: Dataset, tmp_path: Path) -> None:
    shutil.copy(dataset.cases[0].label_path, prediction_path(tmp_path, "case_0"))
    with pytest.raises(ValueError, match=r"case_0\.nii\.gz: expected a folder without"):
        segment_dataset(trained_run.folder, first(dataset, 1), tmp_path, device="cpu")


def test_dataset_with_other_labels_is_refused(trained_run: Run, dataset: Dataset, tmp_path: Path) -> None:
    spec = dataset.spec.model_copy(update={"window_hu": (-7.0, 9.0)})
    other = Dataset(dataset.root, spec, {**dataset.labels, "lumen": 77}, dataset.cases)
    message = (
        r"like the one the network was trained on; found one with other labels \('.*, lumen=77' instead of '.*'\); "
        r"window_hu \(\[-7.0, 9.0\] instead of"
    )
    with pytest.raises(ValueError, match=message):
        segment_dataset(trained_run.folder, other, tmp_path, device="cpu")


def test_nothing_half_written_stays_when_a_case_fails(
    trained_run: Run, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted = module.predict_case

    def fail_second(*arguments: object, is_mirrored: bool) -> object:
        if prediction_path(tmp_path / "out", "case_0").exists():
            raise KeyboardInterrupt
        return predicted(*arguments, is_mirrored=is_mirrored)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "predict_case", fail_second)
    with pytest.raises(KeyboardInterrupt):
        segment_dataset(trained_run.folder, first(dataset, 2), tmp_path / "out", device="cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case_0.nii.gz", RECORD_FILE]


def test_another_scan_of_the_same_size_and_time_is_predicted_anew(
    trained_run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    """Content decides: a copy that keeps its times is done, another scan is not."""
    root = Path(shutil.copytree(dataset.root, tmp_path / "data"))
    part, out = first(open_dataset(root), 2), tmp_path / "out"
    segment_dataset(trained_run.folder, part, out, device="cpu")
    before = times(out, ["case_0", "case_1"])
    one, other = (case.image_path for case in part.cases)
    image, stamp = read_volume(one), other.stat()
    write_volume(image.with_array(image.array[::-1].copy()), other)
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    shutil.copy2(one, tmp_path / "copy")
    (tmp_path / "copy").replace(one)
    segment_dataset(trained_run.folder, part, out, device="cpu")
    after = times(out, ["case_0", "case_1"])
    assert after["case_0"] == before["case_0"]
    assert after["case_1"] > before["case_1"]
