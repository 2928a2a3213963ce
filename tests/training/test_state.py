"""A saved state goes on exactly as if it had never been put away."""

from pathlib import Path

import pytest
import torch
from torch import nn

from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.descent import averaged_copy, update_average
from promptlesion.training.device import place
from promptlesion.training.seeding import torch_generator
from promptlesion.training.state import TrainState


def build(seed: int) -> TrainState:
    torch.manual_seed(seed)
    network = place(
        nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.SiLU(), nn.Conv3d(4, 2, 1)),
        torch.device("cpu"),
    )
    return TrainState(
        networks={"network": network, "average": averaged_copy(network)},
        optimizers={"network": torch.optim.Adam(network.parameters(), lr=1e-2)},
        counters={"best_dice": 0.0},
    )


def train(state: TrainState, until: int) -> None:
    network = state.networks["network"]
    while state.step < until:
        values = torch.randn(2, 2, 4, 3, 5, generator=torch_generator(0, state.step))
        loss = (network(values) - values.flip(2)).square().mean()
        state.optimizers["network"].zero_grad()
        loss.backward()
        state.optimizers["network"].step()
        update_average(state.networks["average"], network, decay=0.9, step=state.step)
        state.counters["best_dice"] = loss.item()
        state.step += 1


def test_resumed_equals_unbroken_bit_for_bit(tmp_path: Path) -> None:
    unbroken = build(seed=1)
    train(unbroken, until=9)
    first = build(seed=1)
    train(first, until=4)
    first.save(tmp_path / "state.pt")
    resumed = build(seed=2)
    resumed.load(tmp_path / "state.pt")
    assert resumed.step == 4
    assert resumed.counters == first.counters
    train(resumed, until=9)
    for name, network in unbroken.networks.items():
        other = resumed.networks[name].state_dict()
        assert all(torch.equal(tensor, other[key]) for key, tensor in network.state_dict().items())
    assert resumed.counters == unbroken.counters


def test_saving_leaves_one_file_and_changes_nothing(tmp_path: Path) -> None:
    state = build(seed=1)
    train(state, until=2)
    before = {name: tensor.clone() for name, tensor in state.networks["network"].state_dict().items()}
    state.save(tmp_path / "state.pt")
    state.save(tmp_path / "state.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert all(torch.equal(before[k], v) for k, v in state.networks["network"].state_dict().items())


class Executed:
    """Pickled, it would create a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_what_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save(
        {"networks": {}, "optimizers": {}, "counters": Executed(tmp_path / "ran"), "step": 1}, tmp_path / "state.pt"
    )
    with pytest.raises(CheckpointError, match=r"state\.pt: expected the state of a training; .* Remove it"):
        build(seed=1).load(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_a_state_cut_short_or_of_other_networks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = build(seed=1)
    state.save(path)
    other = TrainState(networks={"network": nn.Conv3d(1, 1, 1)}, optimizers={})
    with pytest.raises(
        CheckpointError, match=r'the weights of the Conv3d .* "weight", "bias"\. Unexpected .*"0\.bias"'
    ):
        other.load(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        state.load(path)
