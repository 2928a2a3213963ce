"""Bytes spoilt in the headers of every format end in a dataset or in a refusal, never in a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def spoil(seconds: float, seed: int, keep: Path) -> str:
    command = [sys.executable, "-m", "tests.data.sources.spoilt_bytes", "--seconds", str(seconds), "--seed", str(seed)]
    root = Path(__file__).parents[3]
    ended = subprocess.run(
        [*command, "--keep", str(keep)], capture_output=True, text=True, cwd=root, env=os.environ, timeout=seconds + 120
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    return ended.stdout


def test_some_spoilt_headers(tmp_path: Path) -> None:
    assert "refused" in spoil(3, 1, tmp_path)


@pytest.mark.slow
def test_spoilt_headers_for_ten_minutes(tmp_path: Path) -> None:
    spoil(600, 0, tmp_path)
