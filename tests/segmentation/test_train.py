import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset, open_dataset, read_case, write_case, write_dataset_json, write_spec
from promptlesion.data.patch_batches import PatchBatch, PatchBatches
from promptlesion.data.volume import read_volume
from promptlesion.evaluation.segmentation_metrics import evaluate_folder
from promptlesion.segmentation import train as train_module
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.inference import load_segmentation
from promptlesion.segmentation.predict import segment_dataset
from promptlesion.segmentation.train import NOTHING_KEPT, keep_best
from promptlesion.training.checkpoint import load_checkpoint
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.run import Run, RunError, read_metrics
from promptlesion.training.state import TrainState

MakeRun = Callable[..., Run]


def weights(run: Run) -> dict[str, Tensor]:
    return load_checkpoint(run.checkpoint_folder, stage="segmentation").weights


def card(run: Run) -> dict[str, object]:
    return load_checkpoint(run.checkpoint_folder, stage="segmentation").card


@pytest.fixture(scope="module")
def unbroken(train: MakeRun, config: SegmentationConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("unbroken") / "run", config)


class KilledError(Exception):
    """Stands for a kill at a chosen step."""


@pytest.mark.parametrize("killed_after_steps", [1, 4, 5])
def test_interrupted_run_ends_with_the_weights_of_an_unbroken_one(
    killed_after_steps: int,
    train: MakeRun,
    config: SegmentationConfig,
    unbroken: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed within the first epoch, at the start of the second, and within it."""

    draw = PatchBatches.draw

    def draw_until_killed(batches: PatchBatches, step: int, items: range) -> PatchBatch:
        if step == killed_after_steps:
            raise KilledError
        return draw(batches, step, items)

    with monkeypatch.context() as patched:
        patched.setattr(PatchBatches, "draw", draw_until_killed)
        with pytest.raises(KilledError):
            train(tmp_path / "run", config)
    torch.rand(5)  # random state must not matter
    resumed = train(tmp_path / "run", config)

    assert read_metrics(resumed.folder) == read_metrics(unbroken.folder)
    expected = weights(unbroken)
    for name, tensor in weights(resumed).items():
        assert torch.equal(tensor, expected[name]), name
    final = (torch.load(run.folder / "state.pt", weights_only=True) for run in (resumed, unbroken))
    resumed_state, unbroken_state = final
    assert resumed_state["counters"] == unbroken_state["counters"]
    for name, tensor in resumed_state["networks"]["segmentation"].items():
        assert torch.equal(tensor, unbroken_state["networks"]["segmentation"][name]), name


def test_interrupted_dynunet_ends_with_the_weights_of_an_unbroken_one(
    train: MakeRun, config: SegmentationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynunet = SegmentationConfig(**{**config.model_dump(), "network": "dynunet", "channels": (4, 6, 8)})
    unbroken = train(tmp_path / "unbroken", dynunet)
    draw = PatchBatches.draw

    def draw_until_killed(batches: PatchBatches, step: int, items: range) -> PatchBatch:
        if step == 4:
            raise KilledError
        return draw(batches, step, items)

    with monkeypatch.context() as patched:
        patched.setattr(PatchBatches, "draw", draw_until_killed)
        with pytest.raises(KilledError):
            train(tmp_path / "run", dynunet)
    resumed = train(tmp_path / "run", dynunet)
    assert (resumed.folder / "metrics.jsonl").read_bytes() == (unbroken.folder / "metrics.jsonl").read_bytes()
    for name in ("weights.safetensors", "card.json"):
        assert (resumed.checkpoint_folder / name).read_bytes() == (unbroken.checkpoint_folder / name).read_bytes()
    assert card(resumed)["method"] == "dynunet"


def test_validation_does_not_change_the_weights(
    train: MakeRun, config: SegmentationConfig, unbroken: Run, tmp_path: Path
) -> None:
    rarely = train(tmp_path / "run", config.model_copy(update={"validate_every_epochs": 2}))
    states = [torch.load(run.folder / "state.pt", weights_only=True) for run in (rarely, unbroken)]
    for name, tensor in states[0]["networks"]["segmentation"].items():
        assert torch.equal(tensor, states[1]["networks"]["segmentation"][name]), name
    assert [line["step"] for line in read_metrics(rarely.folder) if "validation_dice" in line] == [6]


def test_reports_loss_each_step_and_dice_each_epoch(unbroken: Run) -> None:
    lines = read_metrics(unbroken.folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all("loss" in line for line in lines)
    validated = [line for line in lines if "validation_dice" in line]
    assert [line["step"] for line in validated] == [3, 6]
    for line in validated:
        by_type = [line["validation_dice_hard_plaque"], line["validation_dice_soft_plaque"]]
        assert line["validation_dice"] == pytest.approx(np.mean(by_type), abs=1e-6)


def test_finished_run_has_nothing_to_do(train: MakeRun, config: SegmentationConfig, unbroken: Run) -> None:
    before = (unbroken.checkpoint_folder / "weights.safetensors").stat().st_mtime_ns
    again = train(unbroken.folder, config)
    assert again.is_finished
    assert (again.checkpoint_folder / "weights.safetensors").stat().st_mtime_ns == before


def test_other_synthetic_cases_need_another_folder(
    train: MakeRun, config: SegmentationConfig, unbroken: Run, cases: list[CachedCase]
) -> None:
    with pytest.raises(RunError, match="synthetic cases"):
        train(unbroken.folder, config, synthetic_cases=cases[5:6])


def test_stops_after_exactly_25_epochs_without_a_better_dice_and_keeps_the_best_weights(
    train: MakeRun, config: SegmentationConfig, cases: list[CachedCase], tmp_path: Path
) -> None:
    """With a vanishing learning rate the Dice stands still, so the first validation stays the best."""
    paper = SegmentationConfig()
    standing = config.model_copy(
        update={
            "num_epochs": paper.num_epochs,
            "patience_epochs": paper.patience_epochs,
            "steps_per_epoch": 1,
            "learning_rate": 1e-12,
        }
    )
    run = train(tmp_path / "run", standing, validation_cases=cases[3:4])
    assert [line["step"] for line in read_metrics(run.folder) if "validation_dice" in line] == list(range(1, 27))
    assert len({line["validation_dice"] for line in read_metrics(run.folder)}) == 1
    assert card(run)["best_epoch"] == 1
    assert card(run)["num_epochs"] == 1 + 25
    first = train(tmp_path / "first", standing.model_copy(update={"num_epochs": 1}), validation_cases=cases[3:4])
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(run)[name]), name
    networks = torch.load(run.folder / "state.pt", weights_only=True)["networks"]
    assert any(not torch.equal(tensor, networks["best"][name]) for name, tensor in networks["segmentation"].items())


def test_patience_counts_from_the_best_epoch_whose_weights_are_kept() -> None:
    """The mean over the types counts; as good as the best is not better."""
    network, best = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    state = TrainState({"segmentation": network, "best": best}, {}, dict(NOTHING_KEPT))
    kept, waited = [], []
    dice = [(0.0, 0.0)] * 3 + [(0.2, 0.4), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)]
    for epoch, (hard, soft) in enumerate(dice, start=1):
        torch.nn.init.constant_(network.weight, epoch)
        assert keep_best(state, {"hard": hard, "soft": soft}, epoch) == pytest.approx((hard + soft) / 2)
        kept.append(best.weight.item())
        waited.append(state.counters["epochs_since_best"])
    assert kept == [1, 1, 1, 4, 4, 4, 7]
    assert waited == [0, 0, 0, 0, 1, 2, 0]
    assert state.counters["best_dice"] == pytest.approx(0.4)


def test_patience_does_not_count_while_nothing_is_found(
    train: MakeRun, config: SegmentationConfig, cases: list[CachedCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes 30 epochs to find a lesion, and never a better Dice after that."""
    dice = iter([0.0] * 30 + [0.3] * 100)

    def found(*_: object, **__: object) -> dict[str, float]:
        return {"hard_plaque": next(dice)}

    monkeypatch.setattr(train_module, "validation_dice", found)
    asked = config.model_copy(update={"num_epochs": 100, "patience_epochs": 25, "steps_per_epoch": 1})
    run = train(tmp_path / "run", asked, validation_cases=cases[3:4])
    assert card(run)["best_epoch"] == 31
    assert card(run)["num_epochs"] == 31 + 25


def test_learns_the_labels_and_says_so_in_its_card(trained_run: Run, cases: list[CachedCase]) -> None:
    found = card(trained_run)
    best = max(line.get("validation_dice", 0.0) for line in read_metrics(trained_run.folder))
    assert best > 0.7
    assert found["best_dice"] == pytest.approx(best, abs=1e-6)
    assert (found["stage"], found["method"]) == ("segmentation", "residual-unet")
    assert {"window_hu", "spacing_mm", "lesion_types", "data_fingerprint", "versions"} <= set(found)
    assert found["labels"] == {"background": 0, "wall": 2, "hard_plaque": 5, "soft_plaque": 9}
    assert found["training_cases"] == found["training_subjects"] == [case.name for case in cases[:3]]
    assert found["validation_cases"] == ["case_3", "case_4"]
    assert found["synthetic_cases"] == []
    assert json.loads((trained_run.folder / "run.json").read_text())["is_finished"]


def test_type_absent_from_validation_is_left_out(
    train: MakeRun, config: SegmentationConfig, cases: list[CachedCase], tmp_path: Path
) -> None:
    run = train(tmp_path / "run", config, validation_cases=cases[6:8])
    line = read_metrics(run.folder)[-1]
    assert "validation_dice_soft_plaque" not in line
    assert line["validation_dice"] == line["validation_dice_hard_plaque"]


def test_validation_without_lesions_is_refused(
    train: MakeRun, config: SegmentationConfig, cases: list[CachedCase], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"found none in \['case_7'\]"):
        train(tmp_path / "run", config, validation_cases=cases[7:8])


@pytest.mark.parametrize("part", ["validation_cases", "test_cases"])
def test_planted_leak_stops_the_run_before_it_begins(
    part: str, train: MakeRun, config: SegmentationConfig, cases: list[CachedCase], tmp_path: Path
) -> None:
    painted = CachedCase(name="synthetic_0", subject="case_4", folder=cases[0].folder)
    parts = {"validation_cases": cases[3:4], "test_cases": [], part: cases[4:5]}
    with pytest.raises(ValueError, match=r"synthetic_0: .*'case_4'"):
        train(tmp_path / "run", config, synthetic_cases=[painted], **parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings", [{"prefetch_batches": 0}, {"prefetch_batches": 5, "activation_checkpointing": "on"}]
)
def test_how_the_machine_is_used_changes_no_bit(
    train: MakeRun, config: SegmentationConfig, unbroken: Run, tmp_path: Path, settings: dict[str, object]
) -> None:
    run = train(tmp_path / "run", config, hardware=HardwareConfig(**settings))
    assert read_metrics(run.folder) == read_metrics(unbroken.folder)
    for name, tensor in weights(unbroken).items():
        assert torch.equal(weights(run)[name], tensor), name


def test_what_nobody_labelled_is_not_learnt_nor_counted(
    dataset: Dataset, tmp_path: Path, config: SegmentationConfig, train: Callable[..., Run]
) -> None:
    """A dataset with nnU-Net's `ignore` trains a network that has no such class; scores leave its voxels out."""
    root = tmp_path / "data"
    for case in dataset.cases[:5]:
        image, labels = read_case(dataset, case)
        labels.array[:, :, :6] = 7
        write_case(root, case.name, image, labels)
    write_dataset_json(root, labels={**dataset.labels, "ignore": 7}, num_training=5, extra={})
    write_spec(dataset.spec, root / "lesions.toml")
    ignoring = open_dataset(root)
    assert ignoring.ignored_label == 7
    cases = build_cache(ignoring, tmp_path / "cache")
    run = train(
        tmp_path / "run", config, real_cases=cases[:3], validation_cases=cases[3:], labels=dict(ignoring.labels)
    )
    model = load_segmentation(run.folder, torch.device("cpu"))
    assert model.classes.values == (0, 2, 5, 9)
    segment_dataset(run.folder, ignoring, tmp_path / "out", device="cpu")
    segment_dataset(run.folder, dataset, tmp_path / "elsewhere", device="cpu")  # which has no such label
    scores = evaluate_folder(ignoring, tmp_path / "out", tolerance_mm=2.0)
    for score, case in zip(scores[::2], ignoring.cases, strict=True):
        predicted = read_volume(tmp_path / "out" / f"{case.name}.nii.gz").array[:, :, 6:]
        assert score.num_predicted_voxels == int((predicted == 5).sum())
