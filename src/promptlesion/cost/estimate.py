"""What a stage takes in memory, time and disk, and what that depends on."""

import math
from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True)
class StageEstimate:
    """What a stage takes."""

    stage: str
    what: str
    """How much work that is, in words."""
    seconds: float
    seconds_a_step: float
    memory_bytes: int
    """On the device; on a CPU all that the process holds."""
    host_bytes: int
    """In main memory beside an accelerator's; 0 on a CPU."""
    disk_bytes: int
    measured_patch_voxels: int
    """Edge of the patches that were timed; 0 where the time is none of a network's."""
    patch_voxels: int


@dataclass(frozen=True)
class Extent:
    """How much there is to work on."""

    num_train: int
    num_validation: int
    num_lesions: int
    """Of the training cases."""
    num_types: int
    num_labels: int
    """Background included."""
    prepared_voxels: tuple[int, ...]
    """Of every case at the networks' spacing."""
    spacing_mm: tuple[float, float, float]
    """That spacing, on which nnU-Net's architecture depends."""
    window_hu: tuple[float, float]
    scan_voxels: float
    """Of the median scan as it is stored."""
    seconds_read: float
    """Of the median CT."""


def gib(size: int | float) -> str:
    """`1.2 GiB`, or MiB where that is less than one."""
    return f"{size / _GIB:.1f} GiB" if size >= _GIB else f"{math.ceil(size / 2**20)} MiB"
