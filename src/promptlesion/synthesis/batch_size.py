"""How many scans and lesions are painted together, and how many processes paint."""

import os

import torch

from promptlesion.training.memory import main_memory_bytes

_LARGE_PATCH_VOXELS = 96**3
_MOST_ON_CPU, _MOST_ON_ACCELERATOR = 8, 64
_GIB_PER_LARGE_PATCH = 4
_MOST_LARGE_PATCHES = 16
SCANS_TOGETHER = 4
"""Scans whose lesions are painted together: a cohort's groups are the same on every machine.

With four lesions of each that fills an accelerator; more scans cost memory, and leave workers without a group.
"""
_GROUPS_ON_ACCELERATOR = 2
_GROUPS_AN_ACCELERATOR_S_WORKER_TAKES = 8
_BYTES_A_VOXEL = 6
_CASES_PER_WORKER = 8
"""Fewer are done before a process that must first import everything has begun."""
_GIB_PER_WORKER = 1.5
"""Beside the scans that it has open."""


def lesions_at_once(device: torch.device, *, patch_voxels: int) -> int:
    """Return how many patches of this edge to sample together.

    On a CPU one latent of 24 x 24 x 24 voxels keeps the network busy. An accelerator gets as many as its memory allows.
    The last bits of a lesion depend on the number.
    """
    large, most = 1, _MOST_ON_CPU
    if device.type != "cpu":
        large, most = 2, _MOST_ON_ACCELERATOR
    if device.type == "cuda":
        memory_gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        large = max(1, min(_MOST_LARGE_PATCHES, int(memory_gib / _GIB_PER_LARGE_PATCH)))
    return max(1, min(most, large * _LARGE_PATCH_VOXELS // patch_voxels**3))


def groups_at_once(device: torch.device) -> int:
    """Return of how many groups the scans are open: an accelerator samples one while another is read or written."""
    return 1 if device.type == "cpu" else _GROUPS_ON_ACCELERATOR


def groups_a_turn(device: torch.device, num_groups: int, *, num_workers: int) -> int:
    """Return how many groups a worker takes at a time: an accelerator's needs more than it has open, to stay busy."""
    if groups_at_once(device) == 1:
        return 1
    return max(1, min(_GROUPS_AN_ACCELERATOR_S_WORKER_TAKES, num_groups // num_workers))


def scans_at_once(device: torch.device) -> int:
    """Return how many scans a process has in memory."""
    return SCANS_TOGETHER * groups_at_once(device)


def open_scans_bytes(device: torch.device, *, scan_voxels: int | float) -> float:
    """Return the main memory that a process needs for its open scans of this size, label maps and reading included."""
    return float(_BYTES_A_VOXEL * scan_voxels * scans_at_once(device))


def default_num_workers(device: torch.device, num_cases: int, *, scan_voxels: int) -> int:
    """Return how many processes paint by default: one on an accelerator, on a CPU one a core, as far as memory goes.

    A small cohort is done by one.

    Args:
        device: what they compute on.
        num_cases: cases to be made.
        scan_voxels: of the largest scan.
    """
    if device.type != "cpu" or "RANK" in os.environ:  # torchrun has started as many as there should be
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gib = main_memory_bytes() / 2**30
    gib = _GIB_PER_WORKER + open_scans_bytes(device, scan_voxels=scan_voxels) / 2**30
    return max(1, min(cores, int(memory_gib // gib), num_cases // _CASES_PER_WORKER))
