"""The one training loop: a stage says how a batch is drawn and what its losses are; all else is done here."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.training.checkpoint import save_checkpoint
from promptlesion.training.compiling import ready_to_train
from promptlesion.training.descent import averaged_copy, build_adam, descend, set_learning_rate, update_average
from promptlesion.training.hardware import HardwareConfig
from promptlesion.training.optimisation import AveragedOptimisationConfig, OptimisationConfig
from promptlesion.training.prefetch import prefetched
from promptlesion.training.run import Report, Run
from promptlesion.training.state import TrainState

AVERAGE = "average"
"""Name in a state of the moving average of the one network that is trained."""
MAX_GRADIENT_NORM = 1.0
"""Where a stage has none of its own."""
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Loss:
    """What one network descends in a step."""

    network: str
    """Its name in the state."""
    value: Float[Tensor, ""]
    figures: Report
    """What the log says of the step."""


@dataclass(frozen=True)
class Stage(Generic[Batch]):
    """What a stage says of its training."""

    state: TrainState
    """Networks that have an optimiser are trained; an `AVERAGE` follows; any other is the stage's own affair."""
    num_steps: int
    """The most there are."""
    draw: Callable[[int], Batch]
    """Returns this process's share of the batch of a step; threads call it."""
    losses: Callable[[Batch, int], Iterable[Loss]]
    """Of a batch in a step; a network takes its step before the next loss is asked for."""
    compiled: nn.Module
    """What torch.compile may build, and whose blocks may compute their activations again."""
    blocks: tuple[type[nn.Module], ...]
    checkpoint_every_steps: int
    card: Callable[[], Mapping[str, object]]
    """Says what was trained, once it is."""
    parts: Mapping[str, str]
    """Of the checkpoint: the name of a network there, and in the state."""
    max_gradient_norm: float = MAX_GRADIENT_NORM
    ema_decay: float | None = None
    after_step: Callable[[], Report] | None = None
    """Does what follows a step, a validation say, and returns its figures."""
    has_ended: Callable[[], bool] = lambda: False
    """Whether the training is over before `num_steps`."""


def build_state(config: OptimisationConfig, trained: Mapping[str, nn.Module], **others: nn.Module) -> TrainState:
    """Return the state of a training that has not begun, with an Adam for each network that is trained."""
    rate, betas = config.learning_rate, config.adam_betas
    optimizers = {name: build_adam(network, learning_rate=rate, betas=betas) for name, network in trained.items()}
    return TrainState(networks={**trained, **others}, optimizers={**optimizers})


def averaged_stage(
    name: str,
    network: nn.Module,
    config: AveragedOptimisationConfig,
    *,
    compiled: nn.Module,
    blocks: tuple[type[nn.Module], ...],
    draw: Callable[[int], Batch],
    loss: Callable[[Batch], Tensor],
    card: Callable[[], Mapping[str, object]],
) -> Stage[Batch]:
    """Return the stage of one network with one loss, of which the moving average is kept."""
    return Stage(
        state=build_state(config, {name: network}, **{AVERAGE: averaged_copy(network)}),
        num_steps=config.num_steps,
        draw=draw,
        losses=lambda batch, _: only_loss(name, loss(batch)),
        compiled=compiled,
        blocks=blocks,
        checkpoint_every_steps=config.checkpoint_every_steps,
        card=card,
        parts={name: AVERAGE},
        max_gradient_norm=config.max_gradient_norm,
        ema_decay=config.ema_decay,
    )


def only_loss(network: str, value: Float[Tensor, ""]) -> list[Loss]:
    """Return the losses of a step that has but one, which the log calls `loss`."""
    return [Loss(network, value, {"loss": value})]


def train(run: Run, stage: Stage[Batch], config: OptimisationConfig, *, hardware: HardwareConfig) -> None:
    """Train to the end, an interrupted run from where it was last saved, and write the checkpoint.

    Args:
        run: opened, and left to be marked as finished.
        stage: what is trained, and on what.
        config: how its networks descend.
        hardware: how the machine is used; it changes results by rounding at most.
    """
    run.resume(stage.state)
    reports = training_steps(stage, config, device=run.device, hardware=hardware)
    run.train(stage.state, reports, num_steps=stage.num_steps, checkpoint_every_steps=stage.checkpoint_every_steps)
    card = stage.card()
    parts = {part: stage.state.networks[name].state_dict() for part, name in stage.parts.items()}
    save_checkpoint(run.checkpoint_folder, card=card, parts=parts)


def training_steps(
    stage: Stage[Batch], config: OptimisationConfig, *, device: torch.device, hardware: HardwareConfig
) -> Iterator[Report]:
    """Train step by step from where the state is, yielding the figures of each step."""
    state = stage.state

    def first_loss() -> Tensor:
        return next(iter(stage.losses(stage.draw(state.step), state.step))).value

    is_compiled = ready_to_train(stage.compiled, hardware=hardware, device=device, blocks=stage.blocks, loss=first_loss)
    remaining = range(state.step, stage.num_steps)
    for batch in prefetched(stage.draw, remaining, num_batches=hardware.prefetch_batches):
        if stage.has_ended():
            return
        for name, optimizer in state.optimizers.items():
            state.networks[name].train()
            set_learning_rate(
                optimizer,
                start=config.learning_rate,
                step=state.step,
                num_steps=stage.num_steps,
                decay=config.learning_rate_decay,
            )
        losses = stage.losses(batch, state.step)
        report = take_step(state, losses, max_gradient_norm=stage.max_gradient_norm, ema_decay=stage.ema_decay)
        if stage.after_step is not None:
            # for batches of all kinds the compiler would begin anew
            with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
                report |= stage.after_step()
        yield report


def take_step(
    state: TrainState, losses: Iterable[Loss], *, max_gradient_norm: float, ema_decay: float | None = None
) -> dict[str, float | Tensor]:
    """Let each network descend its loss, and the average follow with `ema_decay`; return the figures of the step."""
    report: dict[str, float | Tensor] = {}
    for loss in losses:
        network = state.networks[loss.network]
        descend(loss.value, network, state.optimizers[loss.network], max_gradient_norm=max_gradient_norm)
        if ema_decay is not None:
            update_average(state.networks[AVERAGE], network, decay=ema_decay, step=state.step)
        report |= {name: v.detach() if isinstance(v, Tensor) else v for name, v in loss.figures.items()}
    state.step += 1
    return report
