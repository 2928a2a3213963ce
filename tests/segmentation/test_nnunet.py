"""nnU-Net v2 behind the same door: what it is handed, what it is told, and (slow) what it gives back."""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, DatasetSpec, open_dataset, write_case, write_dataset_json, write_spec
from promptlesion.data.prepared import PreparedDataset, prepare_dataset
from promptlesion.data.volume import Volume, read_volume
from promptlesion.evaluation.segmentation_metrics import evaluate_folder
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.nnunet_handover import repetitions
from promptlesion.segmentation.nnunet_process import NNUNetMissingError, find_nnunet
from promptlesion.segmentation.predict import prediction_path, segment_dataset
from promptlesion.segmentation.train import train_stage
from promptlesion.training.run import Run, RunOptions, read_metrics

CONFIG = SegmentationConfig(network="nnunetv2", num_epochs=3, steps_per_epoch=8)


@pytest.fixture(scope="module")
def prepared(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Six subjects, four of which train."""
    parts = {"train": ["case_0", "case_1", "case_2", "case_3"], "val": ["case_4"], "test": ["case_5"]}
    root = tmp_path_factory.mktemp("nnunet") / "data"
    return linked(dataset, root, parts)


def linked(dataset: Dataset, root: Path, parts: dict[str, list[str]]) -> PreparedDataset:
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    for case in dataset.select(name for names in parts.values() for name in names).cases:
        for path in (case.image_path, case.label_path):
            (root / path.parent.name / path.name).symlink_to(path)
    for name in ("dataset.json", "lesions.toml"):
        (root / name).symlink_to(dataset.root / name)
    (root / "splits_final.json").write_text(json.dumps([parts]))
    return prepare_dataset(root, cache=root.parent / "cache", validation_fraction=0.2, test_fraction=0.2, seed=0)


def painted(
    root: Path, spec: DatasetSpec, labels: dict[str, int], scans: dict[str, tuple[str, tuple[Volume, Volume]]]
) -> Dataset:
    """A dataset as `synthesize` writes it: each case's source subject stands in the provenance."""
    lines = []
    for name, (subject, scan) in scans.items():
        write_case(root, name, *scan)
        lines.append(json.dumps({"case": name, "source": subject, "subject": subject}) + "\n")
    (root / "provenance.jsonl").write_text("".join(lines))
    write_dataset_json(root, labels=labels, num_training=len(scans), extra={})
    write_spec(spec, root / "lesions.toml")
    return open_dataset(root)


@pytest.fixture(scope="module")
def synthetic(
    spec: DatasetSpec,
    label_values_by_name: dict[str, int],
    scan_maker: Callable[..., tuple[Volume, Volume]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Dataset:
    scans = {f"painted_{index}": ("case_0", scan_maker(100 + index)) for index in range(3)}
    return painted(tmp_path_factory.mktemp("synthetic"), spec, label_values_by_name, scans)


def broken_environment(folder: Path) -> Path:
    """An environment whose Python says something and fails."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "nnUNetv2_train"):
        path = folder / "bin" / name
        path.write_text("#!/bin/sh\necho no room for nnU-Net >&2\nexit 3\n")
        path.chmod(0o755)
    return folder


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("counts", [(4, 3), (8, 20), (51, 130), (7, 1), (1, 250), (500, 3)])
def test_names_are_repeated_so_that_even_draws_keep_the_ratio(ratio: float, counts: tuple[int, int]) -> None:
    real, synthetic = repetitions(*counts, ratio)
    assert real >= 1 and synthetic >= 1
    assert synthetic * counts[1] / (real * counts[0]) == pytest.approx(ratio, rel=0.02)


def test_without_synthetic_cases_every_name_stands_once() -> None:
    assert repetitions(5, 0, 1.0) == (1, 0)


def test_nnunet_is_handed_the_mixed_dataset_without_the_test_cases_and_its_failure_is_told(
    prepared: PreparedDataset, synthetic: Dataset, tmp_path: Path
) -> None:
    environment = broken_environment(tmp_path / "environment")
    config = CONFIG.model_copy(update={"nnunet_environment": str(environment), "synthetic_ratio": 0.5})
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match=r"run/nnunet\.log: .*exit status 3 and .*no room for nnU-Net"):
        train_stage(prepared, synthetic=synthetic, cache=tmp_path, config=config, options=RunOptions(out, 1, "cpu"))
    raw = only_dataset(out / "nnunet" / "raw")
    names = {case.name for case in (*prepared.part("train").cases, *prepared.part("validation").cases)}
    names |= {case.name for case in synthetic.cases}
    assert {path.name.removesuffix("_0000.nii.gz") for path in (raw / "imagesTr").iterdir()} == names
    assert {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()} == names
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "wall": 1, "hard_plaque": 2, "soft_plaque": 3}
    values = dict(zip((0, 2, 5, 9), range(4), strict=True))
    for case in synthetic.cases:
        truth, handed = read_volume(case.label_path), read_volume(raw / "labelsTr" / f"{case.name}.nii.gz")
        assert np.array_equal(np.vectorize(values.get)(truth.array), handed.array)
        assert np.array_equal(truth.affine, handed.affine)
        assert (raw / "imagesTr" / f"{case.name}_0000.nii.gz").samefile(case.image_path)
    (fold,) = json.loads((out / "nnunet" / "preprocessed" / raw.name / "splits_final.json").read_text())
    assert fold["val"] == ["case_4"] and fold["test"] == []
    assert sum(name.startswith("painted") for name in fold["train"]) / len(fold["train"]) == pytest.approx(1 / 3)
    assert not (out / "checkpoint").exists()


def only_dataset(folder: Path) -> Path:
    (found,) = folder.iterdir()
    assert (found / "dataset.json").is_file()
    return found


@pytest.mark.parametrize(("subject", "part"), [("case_4", "validat"), ("case_5", "test")])
@pytest.mark.parametrize("network", ["unet", "nnunetv2"])
def test_a_synthetic_scan_of_a_held_out_subject_stops_the_run(
    prepared: PreparedDataset,
    scan_maker: Callable[..., tuple[Volume, Volume]],
    label_values_by_name: dict[str, int],
    network: str,
    subject: str,
    part: str,
    tmp_path: Path,
) -> None:
    spec = prepared.dataset.spec
    leak = painted(tmp_path / "leak", spec, label_values_by_name, {"leaked": (subject, scan_maker(9))})
    config = SegmentationConfig.model_validate({"network": network})
    with pytest.raises(ValueError, match=rf"leaked: .*{subject}.*{part}"):
        train_stage(
            prepared, synthetic=leak, cache=tmp_path, config=config, options=RunOptions(tmp_path / "run", 1, "cpu")
        )
    assert not (tmp_path / "run").exists()


def test_where_nnunet_is_missing_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: PreparedDataset
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NNUNetMissingError, match=r"nnUNetv2_train .* in this environment or on PATH; found none\. pip"):
        train_stage(
            prepared, synthetic=None, cache=tmp_path, config=CONFIG, options=RunOptions(tmp_path / "run", 1, "cpu")
        )
    with pytest.raises(NNUNetMissingError, match=f"in {tmp_path}/nowhere; found none"):
        find_nnunet(f"{tmp_path}/nowhere")
    environment = broken_environment(tmp_path / "environment")
    assert find_nnunet(str(environment)) == environment / "bin" / "python"
    (tmp_path / "nnUNetv2_train").symlink_to(environment / "bin" / "nnUNetv2_train")
    assert find_nnunet(None) == environment / "bin" / "python"


@pytest.fixture(scope="module")
def train_nnunet(nnunet: Path, prepared: PreparedDataset, synthetic: Dataset) -> Callable[..., Run]:
    def train(out: Path, **changes: object) -> Run:
        config = CONFIG.model_copy(update={"nnunet_environment": str(nnunet), **changes})
        return train_stage(
            prepared, synthetic=synthetic, cache=out.parent, config=config, options=RunOptions(out, 1, "cpu")
        )

    return train


@pytest.fixture(scope="module")
def nnunet_run(train_nnunet: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_nnunet(tmp_path_factory.mktemp("nnunet") / "unbroken")


@pytest.mark.slow
def test_nnunet_trains_on_a_mixed_dataset_and_its_dice_lands_in_the_same_table(
    nnunet_run: Run, prepared: PreparedDataset, tmp_path: Path
) -> None:
    assert sorted(path.name for path in nnunet_run.folder.iterdir()) == [
        *("checkpoint", "metrics.jsonl", "nnunet.log", "run.json"),
    ]
    card = json.loads((nnunet_run.folder / "checkpoint" / "card.json").read_text())
    assert (card["stage"], card["method"], card["num_epochs"]) == ("segmentation", "nnunetv2", 3)
    assert card["synthetic_cases"] == ["painted_0", "painted_1", "painted_2"]
    metrics = read_metrics(nnunet_run.folder)
    assert [line["step"] for line in metrics] == [8, 16, 24]
    assert metrics[-1]["loss"] < metrics[0]["loss"]

    test = prepared.part("test")
    (case,) = test.cases
    turned = turn_axes(test, tmp_path / "turned")
    for dataset, out in ((test, tmp_path / "out"), (turned, tmp_path / "turned_out")):
        segment_dataset(nnunet_run.folder, dataset, out, device="cpu")
    found, in_turned = (read_volume(prediction_path(tmp_path / name, case.name)) for name in ("out", "turned_out"))
    scan = read_volume(case.image_path)
    assert np.array_equal(found.affine, scan.affine) and found.shape == scan.shape
    assert set(np.unique(found.array)) <= set(prepared.dataset.labels.values())
    assert np.array_equal(found.array, in_turned.array)

    scores = evaluate_folder(test, tmp_path / "out", tolerance_mm=2.0)
    assert {score.lesion_type for score in scores} == {"hard_plaque", "soft_plaque"}
    assert max(score.dice for score in scores) > 0.2


def turn_axes(dataset: Dataset, root: Path) -> Dataset:
    """The same scans, stored with two of their axes the other way round."""
    import nibabel as nib

    for case in dataset.cases:
        for path in (case.image_path, case.label_path):
            (root / path.parent.name).mkdir(parents=True)
            stored = nib.load(path)
            nib.save(stored.as_reoriented(np.array([[0, -1], [1, 1], [2, -1]])), root / path.parent.name / path.name)
    write_dataset_json(root, labels=dataset.labels, num_training=len(dataset.cases), extra={})
    write_spec(dataset.spec, root / "lesions.toml")
    return open_dataset(root)


@pytest.mark.slow
def test_a_killed_nnunet_leaves_nothing_running_and_goes_on_to_the_same_weights(
    nnunet_run: Run,
    train_nnunet: Callable[..., Run],
    nnunet: Path,
    prepared: PreparedDataset,
    synthetic: Dataset,
    kill_in_the_middle: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Killed after an epoch, then ended by two loading workers: the batches depend on neither."""
    out = tmp_path / "killed"
    config = CONFIG.model_copy(update={"nnunet_environment": str(nnunet)})
    train = partial(
        train_stage, prepared, synthetic=synthetic, cache=tmp_path, config=config, options=RunOptions(out, 1, "cpu")
    )
    kill_in_the_middle(train, out=out, after_steps=1)
    deadline = time.monotonic() + 20
    while processes_that_name(out):
        assert time.monotonic() < deadline, processes_that_name(out)
        time.sleep(0.1)
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    train_nnunet(out)
    for name in ("metrics.jsonl", "checkpoint/weights.safetensors"):
        assert (out / name).read_bytes() == (nnunet_run.folder / name).read_bytes(), name


def processes_that_name(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_nnunet_stops_when_its_dice_stands_still_and_keeps_the_best_weights(
    nnunet: Path,
    spec: DatasetSpec,
    label_values_by_name: dict[str, int],
    scan_maker: Callable[..., tuple[Volume, Volume]],
    tmp_path: Path,
) -> None:
    """The validation case's lesions cannot be seen: the better the network, the fewer of them it finds."""
    scans = {f"case_{index}": (f"case_{index}", scan_maker(index)) for index in range(4)}
    scans["case_4"] = ("case_4", (scan_maker(4, ())[0], scan_maker(4)[1]))
    data = painted(tmp_path / "data", spec, label_values_by_name, scans)
    parts = {"train": ["case_0", "case_1", "case_2"], "val": ["case_4"], "test": ["case_3"]}
    prepared = linked(data, tmp_path / "linked" / "data", parts)
    changes = {"nnunet_environment": str(nnunet), "num_epochs": 30, "steps_per_epoch": 2, "patience_epochs": 3}
    config = CONFIG.model_copy(update=changes)
    run = train_stage(
        prepared, synthetic=None, cache=tmp_path, config=config, options=RunOptions(tmp_path / "run", 1, "cpu")
    )
    card = json.loads((run.folder / "checkpoint" / "card.json").read_text())
    best = [line["best_patch_dice"] for line in read_metrics(run.folder)]
    assert len(best) == card["num_epochs"] == card["best_epoch"] + 3 < 30
    assert best[-4] == best[-1] == card["best_patch_dice"]
