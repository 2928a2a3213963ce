"""An experiment as a user starts it, of which a process is killed, or which is asked to end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from promptlesion.config import as_toml
from promptlesion.experiment.experiment import Experiment
from promptlesion.training.run import read_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks Linux which processes there are"),
]
TIMES = ("table2-time.csv", "times.csv")
SEGMENTATION = "2-subjects/segmentation/real/seed-0"
Start = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def start(tiny_experiment: Experiment, tmp_path: Path) -> Start:
    """Start an experiment on two workers in a process group of its own, as a terminal does."""
    segmentation = tiny_experiment.config.segmentation.model_copy(update={"num_epochs": 40, "patience_epochs": 40})
    config = tiny_experiment.config.model_copy(update={"segmentation": segmentation})
    (tmp_path / "tiny.toml").write_text(as_toml(config), encoding="utf-8")
    given = ["--data", tiny_experiment.data, "--lesions", tiny_experiment.lesions, "--config", tmp_path / "tiny.toml"]
    given += ["--methods", "real,copy-paste", "--seeds", 1, "--workers", 2, "--device", "cpu"]

    def started(out: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "promptlesion", "experiment", *map(str, given), "--out", str(out)],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"},
        )

    return started


def workers(command: subprocess.Popen[str]) -> list[int]:
    """The processes of a command's pool that are running, the last started last."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            typed = (path.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == command.pid and state != "Z" and "spawn_main" in typed:
            found.append(int(path.parent.name))
    return sorted(found)


def wait_for_steps(command: subprocess.Popen[str], run: Path, num_steps: int) -> None:
    while len(read_metrics(run)) < num_steps:
        assert command.poll() is None, command.communicate()[0]
        time.sleep(0.02)


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "tables").glob("*.csv") if path.name not in TIMES}


def test_a_killed_or_ended_experiment_goes_on_to_the_same_tables(start: Start, tmp_path: Path) -> None:
    undisturbed = start(tmp_path / "undisturbed")
    said, _ = undisturbed.communicate(timeout=600)
    assert undisturbed.returncode == 0, said

    out = tmp_path / "killed"
    command = start(out)
    wait_for_steps(command, out / SEGMENTATION, 5)
    for pid in workers(command):
        os.kill(pid, signal.SIGKILL)
    said, _ = command.communicate(timeout=600)
    assert command.returncode == 0, said
    assert f"{SEGMENTATION}: its process was killed by signal 9; it is done again" in said
    assert tables(out) == tables(tmp_path / "undisturbed")

    out = tmp_path / "ended"
    for asked, num_steps, seconds in ((signal.SIGTERM, 5, 30), (signal.SIGINT, 15, 5)):
        command = start(out)
        wait_for_steps(command, out / SEGMENTATION, num_steps)
        at = time.monotonic()
        if asked == signal.SIGINT:
            os.killpg(command.pid, asked)
        else:
            command.send_signal(asked)
        said, _ = command.communicate(timeout=60)
        assert time.monotonic() - at < seconds and not workers(command)
        assert command.returncode == 1 and "Interrupted. The same command goes on where it stopped." in said
        assert "Traceback" not in said
        log = (out / "logs" / f"{SEGMENTATION.replace('/', '-')}.log").read_text()
        assert "the same command goes on from there" in log or asked == signal.SIGINT
    command = start(out)
    said, _ = command.communicate(timeout=600)
    assert command.returncode == 0, said
    assert tables(out) == tables(tmp_path / "undisturbed")
