"""The training verbs under torchrun itself, as a user starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptlesion.data.dataset import Dataset
from promptlesion.training.run import read_metrics

SETTINGS = ("patch_voxels=16", "channels=[4,8]", "num_epochs=1", "steps_per_epoch=3", "precision=float32")


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "promptlesion", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
    )


@pytest.mark.slow
def test_a_verb_trains_on_two_processes_and_says_so_once(tiny_data: Dataset, tmp_path: Path) -> None:
    verb = ["train", "segmentation", "--data", tiny_data.root, "--out", tmp_path / "run", "--device", "cpu"]
    verb += [part for setting in SETTINGS for part in ("--set", f"segmentation.{setting}")]
    refused = torchrun(*verb, "--set", "segmentation.batch_size=3")
    assert refused.returncode != 0
    assert "batch_size: expected a multiple of the 2 processes; found 3" in refused.stderr
    assert "exitcode  : 2" in refused.stderr
    assert not (tmp_path / "run").exists()
    ended = torchrun(*verb, "--set", "segmentation.batch_size=4")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("is finished") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["num_processes"], record["is_finished"]) == (2, True)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
