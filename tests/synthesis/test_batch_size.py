"""How many processes paint, and what they have open."""

import os

import pytest
import torch

from promptlesion.synthesis import batch_size
from promptlesion.synthesis.batch_size import (
    SCANS_TOGETHER,
    default_num_workers,
    groups_a_turn,
    open_scans_bytes,
    scans_at_once,
)


class TestNumber:
    def test_one_a_core_of_a_cpu_but_none_for_a_handful_of_cases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
        monkeypatch.setattr(batch_size, "main_memory_bytes", lambda: 2**36)
        cpu = torch.device("cpu")
        numbers = [default_num_workers(cpu, count, scan_voxels=10**6) for count in (0, 1, 15, 16, 31, 32, 10_000)]
        assert numbers == [1, 1, 1, 2, 3, 4, 4]
        monkeypatch.setattr(batch_size, "main_memory_bytes", lambda: 2**33)
        gib = 2**30 // 24  # voxels of four open scans
        assert [default_num_workers(cpu, 100, scan_voxels=n * gib) for n in (0, 1, 2, 3, 9)] == [4, 3, 2, 1, 1]  # 8 GiB
        monkeypatch.setenv("RANK", "0")
        assert default_num_workers(cpu, 100, scan_voxels=0) == 1

    def test_one_on_an_accelerator(self) -> None:
        assert default_num_workers(torch.device("cuda"), 1000, scan_voxels=0) == 1
        assert default_num_workers(torch.device("mps"), 1000, scan_voxels=0) == 1

    def test_an_accelerator_s_process_has_twice_the_scans_open(self) -> None:
        cpu, cuda = (open_scans_bytes(torch.device(name), scan_voxels=10**6) for name in ("cpu", "cuda"))
        assert cuda == 2 * cpu == 6e6 * scans_at_once(torch.device("cuda")) == 6e6 * 2 * SCANS_TOGETHER

    def test_an_accelerator_s_worker_takes_several_groups(self) -> None:
        assert groups_a_turn(torch.device("cpu"), 100, num_workers=2) == 1
        assert [groups_a_turn(torch.device("cuda"), number, num_workers=4) for number in (3, 8, 100)] == [1, 2, 8]
