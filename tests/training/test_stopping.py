"""A signal that asks a training to end finds it saved, and the same command goes on with the same numbers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from promptlesion.training.descent import build_adam
from promptlesion.training.run import Report, Run, RunOptions, read_metrics
from promptlesion.training.state import TrainState
from promptlesion.training.stopping import SIGNALS, end_as_interrupted, signals_postponed

NUM_STEPS = 40


def train(folder: Path, seconds_a_step: float = 0.0) -> None:
    """Train two weights; only the last step is one at which the state is saved anyway."""
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    state = TrainState(
        networks={"network": network},
        optimizers={"network": build_adam(network, learning_rate=0.1, betas=(0.9, 0.99))},
    )
    run = Run(RunOptions(folder, 0, "cpu"), stage="toy", config={}, inputs={})
    run.resume(state)
    run.train(state, steps(state, seconds_a_step=seconds_a_step), num_steps=NUM_STEPS, checkpoint_every_steps=NUM_STEPS)


def steps(state: TrainState, *, seconds_a_step: float):  # type: ignore[no-untyped-def]
    network, optimizer = state.networks["network"], state.optimizers["network"]
    while state.step < NUM_STEPS:
        batch = torch.randn(4, 2, generator=torch.Generator().manual_seed(state.step))
        loss = (network(batch) - batch.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(seconds_a_step)
        state.step += 1
        report: Report = {"loss": loss.detach()}
        yield report


def weights(folder: Path) -> dict[str, torch.Tensor]:
    network = nn.Linear(2, 1)
    state = TrainState(
        networks={"network": network}, optimizers={"network": build_adam(network, learning_rate=0.1, betas=(0.9, 0.99))}
    )
    state.load(folder / "state.pt")
    return network.state_dict()


@pytest.mark.parametrize(
    "name",
    ["SIGTERM", *(pytest.param(each.name, marks=pytest.mark.slow) for each in SIGNALS if each != signal.SIGTERM)],
)
def test_a_training_that_is_asked_to_end_saves_and_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    code = (
        f"import sys; sys.path.append({root!r})\n"
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "from pathlib import Path\n"
        "from tests.training.test_stopping import train\n"
        f"train(Path({str(tmp_path / 'run')!r}), 0.25)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not read_metrics(tmp_path / "run"):
        assert process.poll() is None
        time.sleep(0.05)
    asked = time.monotonic()
    process.send_signal(signal.Signals[name])
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.Signals[name]  # it does what it would have done
    assert time.monotonic() - asked < 5
    step = int(read_metrics(tmp_path / "run")[-1]["step"])
    assert 1 <= step < NUM_STEPS
    assert f"saved at step {step}; the same command goes on from there" in said
    train(tmp_path / "run")
    train(tmp_path / "unbroken")
    files = [tmp_path / name / "metrics.jsonl" for name in ("run", "unbroken")]
    assert files[0].read_bytes() == files[1].read_bytes()
    torch.testing.assert_close(weights(tmp_path / "run"), weights(tmp_path / "unbroken"), rtol=0, atol=0)


def test_a_signal_is_put_off_until_the_block_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        end_as_interrupted()
        reached = []
        with pytest.raises(KeyboardInterrupt), signals_postponed() as postponed:
            assert postponed.received is None
            for _ in range(2):  # a cluster sends it to all, and who has started them once more
                signal.raise_signal(signal.SIGTERM)
            assert postponed.received == signal.SIGTERM
            reached.append("end")
        assert reached == ["end"]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with signals_postponed() as postponed:
            os.kill(os.getpid(), signal.SIGTERM)
            assert postponed.received is None
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def test_outside_the_main_thread_nothing_is_handled() -> None:
    before, within = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with signals_postponed():
            within.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert within == [before]
