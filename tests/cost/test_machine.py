"""This machine has memory and a disk."""

from pathlib import Path

import torch

from promptlesion.cost.machine import this_machine
from promptlesion.training.memory import main_memory_bytes, resident_bytes


def test_this_machine_has_memory_and_a_disk(tmp_path: Path) -> None:
    machine = this_machine("cpu", tmp_path)
    assert machine.device == torch.device("cpu")
    assert 0 < resident_bytes() < main_memory_bytes() == machine.host_bytes == machine.device_bytes
    assert machine.free_disk_bytes > 0
