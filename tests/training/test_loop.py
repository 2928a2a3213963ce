"""The loop against a loop written out by hand, on a toy of two weights."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from promptlesion.training.checkpoint import load_checkpoint
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.loop import (
    AVERAGE,
    Loss,
    Stage,
    averaged_stage,
    build_state,
    only_loss,
    take_step,
    train,
    training_steps,
)
from promptlesion.training.optimisation import AveragedOptimisationConfig, OptimisationConfig
from promptlesion.training.run import Run, RunOptions, read_metrics
from promptlesion.training.seeding import torch_generator

CPU = torch.device("cpu")
PLAIN = HardwareConfig(compile="off", prefetch_batches=0)
CONFIG = AveragedOptimisationConfig(
    num_steps=12,
    batch_size=5,
    learning_rate=0.1,
    learning_rate_decay="cosine",
    max_gradient_norm=0.5,
    adam_betas=(0.8, 0.9),
    ema_decay=0.7,
    checkpoint_every_steps=4,
)


def toy() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(2, 1)


def draw(step: int) -> tuple[Tensor, Tensor]:
    values = torch.randn(CONFIG.batch_size, 2, generator=torch_generator("toy", step))
    return values, 3.0 * values[:, :1] - values[:, 1:] + 0.5


def squared_error(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    values, target = batch
    return (network(values) - target).square().mean()


def toy_stage() -> Stage[tuple[Tensor, Tensor]]:
    network = toy()
    return averaged_stage(
        "line",
        network,
        CONFIG,
        compiled=network,
        blocks=(),
        draw=draw,
        loss=lambda batch: squared_error(network, batch),
        card=lambda: {"stage": "toy", "bias": network.bias.item()},
    )


def by_hand(num_steps: int) -> tuple[nn.Module, list[Tensor], list[float]]:
    """Return the network, the average of its weights, and every loss."""
    network, losses = toy(), []
    average = [weight.detach().clone() for weight in network.parameters()]
    adam = torch.optim.Adam(network.parameters(), lr=0.1, betas=(0.8, 0.9))
    for step in range(num_steps):
        adam.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * step / CONFIG.num_steps))
        loss = squared_error(network, draw(step))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        adam.step()
        kept = min(0.7, (1 + step) / (10 + step))
        average = [torch.lerp(a, w.detach(), 1 - kept) for a, w in zip(average, network.parameters(), strict=True)]
        losses.append(loss.item())
    return network, average, losses


def run_in(folder: Path) -> Run:
    return Run(RunOptions(folder, 0, "cpu"), stage="toy", config=CONFIG.model_dump(mode="json"), inputs={})


@pytest.mark.parametrize("prefetch_batches", [0, 3])
def test_it_descends_as_written_out_by_hand(prefetch_batches: int) -> None:
    stage, hardware = toy_stage(), PLAIN.model_copy(update={"prefetch_batches": prefetch_batches})
    reports = list(training_steps(stage, CONFIG, device=CPU, hardware=hardware))
    network, average, losses = by_hand(CONFIG.num_steps)
    assert stage.state.step == len(reports) == CONFIG.num_steps
    assert [float(report["loss"]) for report in reports] == losses
    assert not any(isinstance(figure, Tensor) and figure.requires_grad for r in reports for figure in r.values())
    for found, expected in zip(stage.state.networks["line"].parameters(), network.parameters(), strict=True):
        assert torch.equal(found, expected)
    for found, mean in zip(stage.state.networks[AVERAGE].parameters(), average, strict=True):
        assert torch.equal(found, mean)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("killed_after", [1, 4, 7])
def test_taken_up_again_it_ends_as_an_unbroken_run(tmp_path: Path, killed_after: int) -> None:
    train(run_in(tmp_path / "whole"), toy_stage(), CONFIG, hardware=PLAIN)

    class KilledError(Exception):
        """In the midst of a draw."""

    def draw_or_die(step: int) -> tuple[Tensor, Tensor]:
        if step == killed_after:
            raise KilledError
        return draw(step)

    out = tmp_path / "broken"
    with pytest.raises(KilledError):
        train(run_in(out), replace(toy_stage(), draw=draw_or_die), CONFIG, hardware=PLAIN)
    assert not (out / "checkpoint").exists()
    again = toy_stage()
    train(run_in(out), again, CONFIG, hardware=PLAIN)
    for name in ("checkpoint/weights.safetensors", "checkpoint/card.json", "metrics.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    checkpoint = load_checkpoint(out / "checkpoint", stage="toy")
    assert torch.equal(checkpoint.part("line")["bias"], again.state.networks[AVERAGE].get_parameter("bias"))
    assert checkpoint.card["bias"] == again.state.networks["line"].get_parameter("bias").item()
    assert not json.loads((out / "run.json").read_text())["is_finished"]  # that is for the stage to say


def test_a_network_has_taken_its_step_before_the_next_loss_is_asked_for() -> None:
    first, second = toy(), toy()
    state = build_state(OptimisationConfig(learning_rate=0.1), {"first": first, "second": second})
    start, seen = first.weight.detach().clone(), []

    def losses() -> Iterator[Loss]:
        yield Loss("first", squared_error(first, draw(0)), {"one": 1.0})
        seen.append(first.weight.detach().clone())
        yield Loss("second", squared_error(second, draw(0)), {"two": torch.tensor(2.0)})

    assert take_step(state, losses(), max_gradient_norm=1.0) == {"one": 1.0, "two": 2.0}
    assert not torch.equal(seen[0], start)
    assert torch.equal(first.weight, second.weight)  # alike, each from its own loss
    assert state.step == 1


def test_it_ends_when_the_stage_says_so_and_logs_what_follows_a_step(tmp_path: Path) -> None:
    network = toy()
    state = build_state(CONFIG, {"line": network}, best=toy())
    modes: list[bool] = []

    def losses(batch: tuple[Tensor, Tensor], _: int) -> list[Loss]:
        modes.append(network.training)
        return only_loss("line", squared_error(network, batch))

    def validate() -> dict[str, float]:
        network.eval()
        state.counters["validations"] = state.counters.get("validations", 0) + 1
        return {"score": 10.0 * state.step} if state.step % 2 == 0 else {}

    stage = Stage(
        state=state,
        num_steps=9,
        draw=draw,
        losses=losses,
        compiled=network,
        blocks=(),
        checkpoint_every_steps=3,
        card=lambda: {"stage": "toy"},
        parts={"chosen": "best"},
        after_step=validate,
        has_ended=lambda: state.counters.get("validations", 0) >= 5,
    )
    for _ in range(2):  # the second time there is nothing left to do but the checkpoint
        train(run_in(tmp_path), stage, CONFIG, hardware=PLAIN)
        assert state.step == 5
    assert modes == [True] * 5
    assert [line.get("score") for line in read_metrics(tmp_path)] == [None, 20.0, None, 40.0, None]
    kept = load_checkpoint(tmp_path / "checkpoint", stage="toy").part("chosen")
    assert torch.equal(kept["weight"], toy().weight)  # nobody trained it
    assert not torch.equal(network.weight, toy().weight)
