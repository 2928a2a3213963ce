"""Commands as users start them: two at once on one folder, and one that Ctrl+C ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.synthesis.contract import contents

from promptlesion.data.dataset import Dataset

PREPARE = ("prepare", "phantom", "--kind", "five", "--cases", "4")
VERBS = ("prepare", "synthesize", "check")


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-m", "promptlesion", *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(command: subprocess.Popen[str]) -> str:
    """Wait for a command that should succeed, and return what it said."""
    said, _ = command.communicate(timeout=600)
    assert command.returncode == 0, said
    assert "Traceback" not in said
    return said


def arguments_of(verb: str, fixtures: pytest.FixtureRequest) -> Sequence[object]:
    """What a verb needs besides --out."""
    if verb == "prepare":
        return PREPARE
    data: Dataset = fixtures.getfixturevalue("tiny_data")
    if verb == "check":
        return ("check", data.root, "--preset", "demo", "--device", "cpu")
    counts = ("--count", "bright=12", "--count", "dark=12", "--set", "synthesis.lesions_per_case=1")
    everybody = ("--set", "data.validation_fraction=0", "--set", "data.test_fraction=0")
    options = (*everybody, "--accept-all", "--set", "synthesis.num_steps=20", "--device", "cpu")
    model: Path = fixtures.getfixturevalue("tiny_diffusion_run")
    return ("synthesize", "--data", data.root, "--model", model, *counts, *options)


def results(out: Path) -> dict[str, bytes]:
    """Every file but those that tell times, the memory that was free, and what the folder is called."""
    others = ("check.", "contact_sheet.png")
    return {name: content for name, content in contents(out).items() if not name.startswith(others)}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["prepare", "synthesize"])
def test_two_commands_at_once_write_what_one_writes_twenty_times(
    request: pytest.FixtureRequest, tmp_path: Path, verb: str
) -> None:
    arguments = arguments_of(verb, request)
    end(start(*arguments, "--out", tmp_path / "one"))
    expected = results(tmp_path / "one")
    for _ in range(20):
        both = [start(*arguments, "--out", tmp_path / "two") for _ in range(2)]
        said = [end(command) for command in both]
        assert sum("another command is at work there" in text for text in said) <= 1
        assert results(tmp_path / "two") == expected
        shutil.rmtree(tmp_path / "two")


def group(pid: int) -> list[int]:
    """The processes of a group that are running."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks Linux which processes there are")
@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_ends_all_processes_and_the_same_command_goes_on(
    request: pytest.FixtureRequest, tmp_path: Path, verb: str
) -> None:
    arguments = (*arguments_of(verb, request), "--workers", 2)
    end(start(*arguments, "--out", tmp_path / "one"))
    for seconds in (0.0, 2.0):
        command = start(*arguments, "--out", tmp_path / "two")
        deadline = time.monotonic() + 120
        while len(group(command.pid)) < 3 and command.poll() is None:  # it, and two workers
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(seconds)
        started = time.monotonic()
        os.killpg(command.pid, signal.SIGINT)
        while group(command.pid):
            assert time.monotonic() < started + 5, group(command.pid)
            time.sleep(0.02)
        said, _ = command.communicate()
        assert "Traceback" not in said
        assert (command.returncode, "Interrupted" in said) in ((0, False), (1, True)), said  # 0: it was done before
    end(start(*arguments, "--out", tmp_path / "two"))
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert not list((tmp_path / "two").rglob(".*"))
