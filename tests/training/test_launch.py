"""Several processes agree; one alone needs nobody."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from promptlesion.training.device import DeviceError
from promptlesion.training.launch import (
    all_reduced_sum,
    average_gradients,
    global_sum,
    is_main_process,
    main_process_first,
    mean_over_processes,
    num_processes,
    process_rank,
    processes,
    share_of_batch,
)
from promptlesion.training.run import Run, RunOptions, read_metrics
from promptlesion.training.state import TrainState

BATCH = 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.SiLU(), nn.Conv3d(4, 1, 1))


def weighted_loss(network: nn.Module, items: range) -> Tensor:
    """A quotient of sums plus the square root of one, so that no mean over shares would do."""
    values, weight = drawn(BATCH, 2, 5, 4, 3)[items], drawn(BATCH, 1, 3, 2, 1, seed=1)[items].abs()
    error = network(values).square()
    return global_sum((weight * error).sum()) / all_reduced_sum(weight.sum()) + global_sum(error.sum()).sqrt()


def test_one_process_is_the_whole() -> None:
    with processes("auto") as device:
        assert device == "auto"
        assert not dist.is_initialized()
    assert (process_rank(), num_processes(), is_main_process()) == (0, 1, True)
    assert share_of_batch(5) == range(5)
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    assert global_sum(value) is value
    assert torch.equal(all_reduced_sum(value), value)
    assert mean_over_processes({"loss": 0.1}) == {"loss": 0.1}


def check_agreement(folder: Path) -> None:
    assert process_rank() == int(os.environ["RANK"])
    assert num_processes() == 3
    assert share_of_batch(BATCH) == range(2 * process_rank(), 2 * process_rank() + 2)
    with pytest.raises(ValueError, match="batch_size: expected a multiple of the 3 processes; found 4"):
        share_of_batch(4)
    assert all_reduced_sum(torch.tensor([process_rank(), 1])).tolist() == [3, 3]
    report = mean_over_processes({"loss": float(process_rank()), "dice": 0.5})
    assert report == pytest.approx({"loss": 1.0, "dice": 0.5}, rel=1e-15)
    with main_process_first():
        assert is_main_process() != (folder / "prepared").exists()
        if is_main_process():
            (folder / "prepared").touch()
    with pytest.raises(ZeroDivisionError), main_process_first():  # nobody is left waiting
        raise ZeroDivisionError
    network = build()
    loss = weighted_loss(network, share_of_batch(BATCH))
    loss.backward()
    average_gradients(network)
    gradients = [parameter.grad for parameter in network.parameters()]
    torch.save({"loss": loss.item(), "gradients": gradients}, folder / f"{process_rank()}.pt")


def test_processes_share_a_batch_and_step_as_one_would(in_processes: Callable[..., None], tmp_path: Path) -> None:
    in_processes(partial(check_agreement, tmp_path), num_processes=3)
    network = build()
    loss = weighted_loss(network, range(BATCH))
    loss.backward()
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    assert [entry["loss"] for entry in found] == pytest.approx([loss.item()] * 3, rel=1e-6)
    for index, parameter in enumerate(network.parameters()):
        torch.testing.assert_close(found[0]["gradients"][index], parameter.grad)
        assert all(torch.equal(entry["gradients"][index], found[0]["gradients"][index]) for entry in found)


def train(folder: Path, *, until: int) -> None:
    """Three processes, momentum, and a saved state after every second step; `until` cuts the run short."""
    run = Run(RunOptions(folder, 0, "cpu"), stage="diffusion", config={}, inputs={})
    assert not run.is_finished
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    state = TrainState(networks={"network": network}, optimizers={"network": optimizer})
    run.resume(state)

    def steps():  # type: ignore[no-untyped-def]
        while state.step < until:
            optimizer.zero_grad()
            values = drawn(BATCH, 2, 5, 4, 3, seed=state.step)[share_of_batch(BATCH)]
            loss = (network(values) - 1).square().mean()
            loss.backward()
            average_gradients(network)
            optimizer.step()
            state.step += 1
            yield {"loss": loss.item()}

    run.train(state, steps(), num_steps=8, checkpoint_every_steps=2)
    if until == 8:
        run.finish()
        assert Run(RunOptions(folder, 0, "cpu"), stage="diffusion", config={}, inputs={}).is_finished
    torch.save(network.state_dict(), folder / f"weights-{process_rank()}.pt")


def test_three_processes_resume_without_a_difference_and_log_their_mean(
    in_processes: Callable[..., None], tmp_path: Path
) -> None:
    """Sums of three are rounded by their order: two processes would not show it."""
    in_processes(partial(train, tmp_path / "unbroken", until=8), num_processes=3)
    in_processes(partial(train, tmp_path / "broken", until=5), num_processes=3)
    in_processes(partial(train, tmp_path / "broken", until=8), num_processes=3)
    train(tmp_path / "single", until=8)
    states = [
        torch.load(tmp_path / name / f"weights-{rank}.pt", weights_only=True)
        for name in ("unbroken", "broken")
        for rank in range(3)
    ]
    single = torch.load(tmp_path / "single" / "weights-0.pt", weights_only=True)
    for name, tensor in states[0].items():
        assert all(torch.equal(state[name], tensor) for state in states), name
        torch.testing.assert_close(tensor, single[name])
    assert json.loads((tmp_path / "broken" / "run.json").read_text())["num_processes"] == 3
    unbroken, broken, alone = (read_metrics(tmp_path / name) for name in ("unbroken", "broken", "single"))
    assert [line["step"] for line in unbroken] == list(range(1, 9))
    assert broken == unbroken
    assert [line["loss"] for line in unbroken] == pytest.approx([line["loss"] for line in alone], abs=2e-6)


def test_a_device_that_processes_cannot_each_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(DeviceError, match="as torchrun gives every process its own; found 'meta'"), processes("meta"):
        pass
    assert not dist.is_initialized()
