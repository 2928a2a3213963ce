"""A run's folder knows what it is, where it stands, and when it is done."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from promptlesion.training.run import Report, Run, RunError, RunOptions, read_metrics
from promptlesion.training.state import TrainState

CONFIG: dict[str, object] = {"learning_rate": 1e-3, "channels": (4, 8), "blocks": {"levels": 2}}


def open_run(
    folder: Path,
    *,
    stage: str = "diffusion",
    seed: int = 5,
    config: dict[str, object] | None = None,
    data: str = "abc",
) -> Run:
    return Run(RunOptions(folder, seed, "cpu"), stage=stage, config=config or CONFIG, inputs={"data": data})


def empty_state() -> TrainState:
    network = nn.Linear(2, 1)
    return TrainState(networks={"network": network}, optimizers={})


def reports(state: TrainState, *, until: int, fail_after: int | None = None) -> Iterator[Report]:
    while state.step < until:
        if state.step == fail_after:
            raise KeyboardInterrupt
        state.step += 1
        yield {"loss": 1.0 / state.step}


def test_training_logs_every_step_and_saves_the_state(tmp_path: Path) -> None:
    run, state = open_run(tmp_path), empty_state()
    run.train(state, reports(state, until=5), num_steps=5, checkpoint_every_steps=2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert read_metrics(tmp_path)[3]["loss"] == pytest.approx(0.25)
    resumed = empty_state()
    run.resume(resumed)
    assert resumed.step == 5
    assert (tmp_path / "tensorboard").is_dir()


def test_an_interrupted_run_goes_on_from_its_last_saved_state(tmp_path: Path) -> None:
    run, state = open_run(tmp_path), empty_state()
    with pytest.raises(KeyboardInterrupt):
        run.train(state, reports(state, until=9, fail_after=5), num_steps=9, checkpoint_every_steps=2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short by the crash
    again, state = open_run(tmp_path), empty_state()
    assert not again.is_finished
    again.resume(state)
    assert state.step == 4
    again.train(state, reports(state, until=9), num_steps=9, checkpoint_every_steps=2)
    assert '{"step": 4, ' in (tmp_path / "metrics.jsonl").read_text()
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 10))


def test_a_first_start_has_nothing_to_resume(tmp_path: Path) -> None:
    run, state = open_run(tmp_path), empty_state()
    run.resume(state)
    assert state.step == 0
    assert read_metrics(tmp_path) == []


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path: Path) -> None:
    run = open_run(tmp_path)
    run.finish()
    record = (tmp_path / "run.json").read_bytes()
    again = open_run(tmp_path)
    assert again.is_finished
    assert again.seconds == pytest.approx(run.seconds, abs=0.01)
    assert (tmp_path / "run.json").read_bytes() == record


def test_seconds_add_up_over_interruptions(tmp_path: Path) -> None:
    open_run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "seconds": 100.0}))
    assert 100.0 <= open_run(tmp_path).seconds < 110.0


def test_another_stage_seed_or_input_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path)
    with pytest.raises(RunError, match=r"stage \('diffusion' instead of 'autoencoder'\)"):
        open_run(tmp_path, stage="autoencoder")
    with pytest.raises(RunError, match=r"seed \(5 instead of 6\)"):
        open_run(tmp_path, seed=6)
    with pytest.raises(RunError, match=r"inputs\.data \('abc' instead of 'xyz'\)"):
        open_run(tmp_path, data="xyz")


def test_another_configuration_is_refused_and_its_key_named(tmp_path: Path) -> None:
    open_run(tmp_path)
    with pytest.raises(RunError) as caught:
        open_run(tmp_path, config={**CONFIG, "blocks": {"levels": 3}, "learning_rate": 1e-4})
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "config.blocks.levels (2 instead of 3)" in message
    assert "config.learning_rate (0.001 instead of 0.0001)" in message
    assert "channels" not in message


def test_a_tuple_in_the_configuration_equals_the_list_json_makes_of_it(tmp_path: Path) -> None:
    open_run(tmp_path)
    assert not open_run(tmp_path, config={**CONFIG, "channels": [4, 8]}).is_finished


def test_the_record_names_machine_and_software(tmp_path: Path) -> None:
    open_run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["device"].startswith("cpu")
    assert record["num_threads"] == torch.get_num_threads()
    assert record["versions"]["torch"] == torch.__version__
    assert record["config"] == {**CONFIG, "channels": [4, 8]}


def test_figures_on_a_device_are_logged_as_those_that_are_numbers(tmp_path: Path) -> None:
    """On an accelerator they are fetched together, some steps late, and always before the state is saved."""

    def tensors(state: TrainState) -> Iterator[Report]:
        for report in reports(state, until=21):
            yield {name: torch.tensor(value, requires_grad=True) for name, value in report.items()} | {"other": 2.5}

    logged = {}
    for name, device in (("now", "cpu"), ("late", "meta")):
        state, inputs = empty_state(), {"data": "abc"}
        run = Run(RunOptions(tmp_path / name, 5, device), stage="diffusion", config=CONFIG, inputs=inputs)
        written: list[int] = []
        run.train(state, _watched(tensors(state), run.folder, written), num_steps=21, checkpoint_every_steps=5)
        logged[name] = (run.folder / "metrics.jsonl").read_bytes()
        assert written == (list(range(21)) if name == "now" else [step // 5 * 5 for step in range(21)])
    assert logged["late"] == logged["now"]
    assert read_metrics(tmp_path / "now")[3] == {"step": 4, "loss": 0.25, "other": 2.5}


def _watched(steps: Iterator[Report], folder: Path, written: list[int]) -> Iterator[Report]:
    """Note before each report how many lines there are."""
    for report in steps:
        written.append(len(read_metrics(folder)))
        yield report
