"""Checkpoints come back as they were saved, or say what is wrong with them."""

import ast
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import promptlesion
from promptlesion.training.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    differences,
    file_hash,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3))
    network[0].to(memory_format=torch.channels_last_3d)
    parts = {"net": network.state_dict(), "network": {"weight": network[0].weight[0]}}
    save_checkpoint(tmp_path / "checkpoint", card={"stage": "autoencoder", "seed": 3}, parts=parts)
    return tmp_path / "checkpoint", network


def test_round_trip(saved: tuple[Path, nn.Module]) -> None:
    folder, network = saved
    checkpoint = load_checkpoint(folder, stage="autoencoder")
    assert checkpoint.card["seed"] == 3
    assert checkpoint.card["weights_sha256"] == file_hash(folder / "weights.safetensors")
    restored = checkpoint.part("net")
    assert restored.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(restored[name], tensor)
        assert restored[name].dtype == tensor.dtype


def test_parts_whose_names_begin_alike_stay_apart(saved: tuple[Path, nn.Module]) -> None:
    folder, network = saved
    part = load_checkpoint(folder, stage="autoencoder").part("network")
    assert list(part) == ["weight"]
    assert torch.equal(part["weight"], network[0].weight[0])


def test_the_card_names_the_software(saved: tuple[Path, nn.Module]) -> None:
    card = json.loads((saved[0] / "card.json").read_text())
    assert card["versions"]["torch"] == torch.__version__
    assert sorted(path.name for path in saved[0].iterdir()) == ["card.json", "weights.safetensors"]


def test_another_stage_is_refused(saved: tuple[Path, nn.Module]) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint of stage 'diffusion'; found 'autoencoder'"):
        load_checkpoint(saved[0], stage="diffusion")


def test_a_format_that_is_not_known_yet_is_refused(saved: tuple[Path, nn.Module]) -> None:
    path = saved[0] / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(
        CheckpointError, match=rf"format_version up to {FORMAT_VERSION}; found {FORMAT_VERSION + 1}, .*torch"
    ):
        load_checkpoint(saved[0], stage="autoencoder")
    del card["format_version"]
    path.write_text(json.dumps(card))
    load_checkpoint(saved[0], stage="autoencoder")


def test_weights_that_do_not_fit_are_named(saved: tuple[Path, nn.Module]) -> None:
    checkpoint = load_checkpoint(saved[0], stage="autoencoder")
    checkpoint.restore(nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3)), part="net", device=torch.device("cpu"))
    message = (
        r'weights.safetensors: expected the weights of the Sequential .* found Missing key.* "2.weight", "2.bias"\. '
        r'Unexpected key.* "1.bias".*size mismatch for 0.weight: .*\[3, 2, 3, 3, 3\].*\[3, 2, 1, 1, 1\]\)\.$'
    )
    with pytest.raises(CheckpointError, match=message):
        checkpoint.restore(
            nn.Sequential(nn.Conv3d(2, 3, 1), nn.SiLU(), nn.Linear(2, 2)), part="net", device=torch.device("cpu")
        )


def test_differences_are_all_named_with_both_values() -> None:
    found = {"window_hu": [0, 1], "config": {"a": 1, "b": 2}, "more": 3}
    expected = {"window_hu": [0, 2], "config": {"a": 1, "b": 3}, "missing": "x"}
    assert differences(found, found) == []
    assert differences(found, expected) == [
        "window_hu ([0, 1] instead of [0, 2])",
        "config.b (2 instead of 3)",
        "missing (None instead of 'x')",
    ]


def test_nothing_in_the_package_unpickles() -> None:
    """Every torch.load says weights_only=True, no numpy.load allows pickles, and nothing calls pickle itself."""
    loads = []
    for path in Path(promptlesion.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                assert not called.startswith(("pickle.", "joblib.", "dill.")), path
                assert options.get("allow_pickle", "False") == "False", path
                assert called != "torch.load" or options.get("weights_only") == "True", path
                loads.append(called)
    assert {"torch.load", "np.load"} <= set(loads)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a finished diffusion checkpoint \(card\.json\); found none"):
        load_checkpoint(tmp_path, stage="diffusion")


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "missing"])
def test_damaged_weights_are_refused(saved: tuple[Path, nn.Module], damage: str) -> None:
    path = saved[0] / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    if damage == "flipped bit":
        path.write_bytes(content)
    elif damage == "cut short":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: expected the SHA-256 stated in card\.json"):
        load_checkpoint(saved[0], stage="autoencoder")


def test_a_checkpoint_cut_off_while_it_is_replaced_counts_as_none(
    saved: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old card goes before the new weights come, so that no card ever stands beside other weights."""

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("promptlesion.training.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(saved[0], card={"stage": "autoencoder"}, parts={})
    with pytest.raises(CheckpointError, match="found none"):
        load_checkpoint(saved[0], stage="autoencoder")


def test_a_damaged_card_is_refused(saved: tuple[Path, nn.Module]) -> None:
    card = saved[0] / "card.json"
    card.write_text(card.read_text()[:40])
    with pytest.raises(CheckpointError, match=r"card\.json: expected JSON; found"):
        load_checkpoint(saved[0], stage="autoencoder")
