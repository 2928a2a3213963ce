"""How soon the command line answers, in a process of its own."""

import os
import subprocess
import sys
import time
from statistics import median

from timing.clock import Timing
from timing.suite import Row, Suite

PART = "startup"
_COMMANDS = (("--help",), ("config", "show"))
_REPEATS = 3


def measure_startup(suite: Suite) -> None:
    """Time commands that compute nothing, by the wall clock, and see whether they import torch."""
    for arguments in _COMMANDS:
        _run(*arguments)  # reads what the later ones find in memory
        taken = [_run(*arguments)[0] for _ in range(_REPEATS)]
        _, told = _run(*arguments, python=("-X", "importtime"))
        timing = Timing(median(taken), min(taken), max(taken), _REPEATS, None, None)
        facts = {"imports_torch": any(line.split("|")[-1].strip() == "torch" for line in told.splitlines())}
        suite.rows.append(Row(PART, " ".join(("promptlesion", *arguments)), "ours", "-", timing, facts=facts))


def _run(*arguments: str, python: tuple[str, ...] = ()) -> tuple[float, str]:
    """Return the seconds of a command, and what it wrote to stderr."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *python, "-m", "promptlesion", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    return time.perf_counter() - started, done.stderr
