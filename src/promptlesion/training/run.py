"""A run's folder: what was asked for, what was measured, and where it stands."""

import json
import logging
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from promptlesion.training.atomic import read_json, write_json, write_text
from promptlesion.training.checkpoint import differences
from promptlesion.training.device import resolve_device
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import any_process, barrier, is_main_process, mean_over_processes, num_processes
from promptlesion.training.progress import ProgressBar, progress_bar
from promptlesion.training.state import TrainState
from promptlesion.training.stopping import signals_postponed

logger = logging.getLogger(__name__)

Report = Mapping[str, float | Tensor]
"""Figures of one step; tensors are fetched from the device some steps later, since fetching waits for it."""
_STEPS_BETWEEN_FETCHES = 16


class RunError(ValueError):
    """A run folder belongs to another configuration, seed or data than asked for."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run lies, and how it is computed."""

    out: Path
    seed: int
    """Of the weights and of every draw."""
    device: str | torch.device = "auto"
    """`auto`, a device's name, or the device that the work is on already."""
    hardware: HardwareConfig = DEFAULT_HARDWARE
    """How the machine is used; it changes results by rounding at most."""


class Run:
    """`run.json`, `metrics.jsonl`, TensorBoard events, `state.pt` and `checkpoint/` of one training run.

    Opening the folder of an interrupted run goes on with it; opening a finished one says so through
    `is_finished`; opening one that was made from something else is an error. Of several processes all open it and
    load from it, and the main one alone writes.
    """

    def __init__(
        self, options: RunOptions, *, stage: str, config: Mapping[str, object], inputs: Mapping[str, str]
    ) -> None:
        """Create the folder or take it up again.

        Args:
            config: the resolved configuration, JSON types only.
            inputs: name -> hash of everything the result depends on besides the configuration.

        Raises:
            DeviceError: the device is not on this machine.
            RunError: the folder holds a run of another stage, configuration, seed or input.
        """
        self.device, folder = resolve_device(options.device), options.out
        self.folder = folder
        self.checkpoint_folder = folder / "checkpoint"
        self._record_path = folder / "run.json"
        self._identity = {
            "stage": stage,
            "seed": options.seed,
            "inputs": dict(inputs),
            "config": json.loads(json.dumps(config)),
        }
        self._seconds_before = 0.0
        self.is_finished = False
        if self._record_path.is_file():
            record = read_json(self._record_path)
            others = differences(record, self._identity)
            if others:
                raise RunError(
                    f"{folder}: expected a run with the asked-for settings; found one with other "
                    + "; ".join(others)
                    + ". Choose another --out, or remove the folder"
                )
            self._seconds_before = float(record["seconds"])
            self.is_finished = bool(record["is_finished"])
        self._started = time.perf_counter()
        barrier()  # nobody writes before all have read
        if not self.is_finished:
            self._write_record()

    def facts(self, method: str) -> dict[str, object]:
        """Return what the card of the trained method says of the run."""
        return {"method": method, **{name: self._identity[name] for name in ("stage", "config", "seed")}}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds spent so far, over all the times the run was taken up."""
        return self._seconds_before + (0.0 if self.is_finished else time.perf_counter() - self._started)

    def _write_record(self) -> None:
        if not is_main_process():
            return
        device = self.device
        record = {
            **self._identity,
            "is_finished": self.is_finished,
            "seconds": round(self.seconds, 2),
            "device": torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device.type} ({platform.machine()})",
            "num_processes": num_processes(),
            "num_threads": torch.get_num_threads(),
            "versions": {
                "python": platform.python_version(),
                **{n: version(n) for n in ("promptlesion", "torch", "monai")},
            },
        }
        write_json(self._record_path, record)

    def train(
        self, state: TrainState, reports: Iterable[Report], *, num_steps: int, checkpoint_every_steps: int
    ) -> None:
        """Run a training loop to its end: log every report, save the state, show a progress bar.

        Of several processes each runs its own loop; what is logged is the mean of their reports. A signal that asks
        the process to end (SIGTERM, SIGUSR1, SIGUSR2) does so after the step, when the state is saved.

        Args:
            state: what the loop trains; an interrupted run's is loaded first, by `resume`.
            reports: the training loop, a generator that yields after each step and ends with the training.
            num_steps: the most steps the loop can take; the length of the progress bar.
            checkpoint_every_steps: how often the state is saved.
        """
        stage = str(self._identity["stage"])
        with (
            signals_postponed() as postponed,
            _MetricsLog(self.folder, after_step=state.step) if is_main_process() else nullcontext() as log,
            progress_bar(stage, num_steps, done=state.step) as bar,
        ):
            most_waiting = 1 if self.device.type == "cpu" else _STEPS_BETWEEN_FETCHES
            waiting: dict[int, Report] = {}
            for own_report in reports:
                waiting[state.step] = own_report
                is_saved = state.step % checkpoint_every_steps == 0
                is_fetched = is_saved or len(waiting) >= most_waiting
                # several processes come to an agreement where they meet anyway
                is_ending = (is_fetched or num_processes() == 1) and any_process(postponed.received is not None)
                if is_fetched or is_ending:
                    _write(waiting, log, bar)
                if is_saved or is_ending:
                    self._save(state)
                    self._write_record()
                if is_ending:
                    logger.info("%s: saved at step %d; the same command goes on from there", self.folder, state.step)
                    raise KeyboardInterrupt
            _write(waiting, log, bar)
        self._save(state)

    def _save(self, state: TrainState) -> None:
        if is_main_process():
            state.save(self.folder / "state.pt")

    def resume(self, state: TrainState) -> None:
        """Load the saved state of an interrupted run, if there is one."""
        path = self.folder / "state.pt"
        if path.is_file():
            state.load(path)

    def finish(self) -> None:
        """Mark the run as done, for all processes at once; from now on there is nothing to do in this folder."""
        seconds = self.seconds
        self.is_finished, self._seconds_before = True, seconds
        self._write_record()
        barrier()


def is_finished_run(folder: Path) -> bool:
    """Return whether a folder holds a run that is done, of whatever settings."""
    path = folder / "run.json"
    return path.is_file() and bool(read_json(path)["is_finished"])


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return the lines of a run's `metrics.jsonl`; a line cut short by a crash is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{name: float(value) for name, value in json.loads(line).items()} for line in lines if line.endswith("}")]


def _write(waiting: dict[int, Report], log: "_MetricsLog | None", bar: ProgressBar) -> None:
    """Log and show the reports that wait, by step, and leave none."""
    for step, own_report in zip(waiting, _fetched(list(waiting.values())), strict=True):
        report = mean_over_processes(own_report)
        if log is not None:
            log.write(step, report)
        bar.update(step, report)
    waiting.clear()


def _fetched(reports: Sequence[Report]) -> list[dict[str, float]]:
    """Return the figures of some steps as numbers; all tensors come from the device in one copy."""
    tensors = [value.detach().float() for report in reports for value in report.values() if isinstance(value, Tensor)]
    fetched = iter(torch.stack(tensors).tolist() if tensors else ())
    return [
        {name: next(fetched) if isinstance(value, Tensor) else value for name, value in report.items()}
        for report in reports
    ]


class _MetricsLog:
    """Appends to `metrics.jsonl` and TensorBoard, after dropping lines from beyond the resumed step."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        kept = [line for line in read_metrics(folder) if line["step"] <= after_step]
        path = folder / "metrics.jsonl"
        write_text(path, "".join(json.dumps({**line, "step": int(line["step"])}) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> "_MetricsLog":
        return self

    def write(self, step: int, report: Mapping[str, float]) -> None:
        self._file.write(
            json.dumps({"step": step, **{name: round(float(value), 6) for name, value in report.items()}}) + "\n"
        )
        for name, value in report.items():
            self._tensorboard.add_scalar(name, value, step)

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._tensorboard.close()
