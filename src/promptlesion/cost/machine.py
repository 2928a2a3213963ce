"""What there is to compute on, and how fast it reads, compresses and draws patches."""

import gzip
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from promptlesion.data.augmentation import Augmentation
from promptlesion.data.intensity import HUWindow
from promptlesion.data.lesion_patch import draw_warp
from promptlesion.data.patch_batches import PatchCut
from promptlesion.training.device import resolve_device
from promptlesion.training.memory import main_memory_bytes, resident_bytes

_BUSY_LOAD = 0.4
_PATCHES_DRAWN = 8
"""To time their drawing: some are turned, scaled or blurred, others not."""


@dataclass(frozen=True)
class Machine:
    """A device with its memory, and the disk that is written to."""

    device: torch.device
    name: str
    device_bytes: int
    """Memory of the device; of a CPU the main memory."""
    host_bytes: int
    free_disk_bytes: int
    load: float
    """Processes that wanted to compute before the check began, for each core."""
    resident_bytes: int
    """What this process holds with everything imported: any stage holds as much before it does anything."""

    @property
    def is_busy(self) -> bool:
        """Whether other work slows what is measured, several threads far more than its share."""
        return self.load > _BUSY_LOAD


def this_machine(device: str, folder: Path) -> Machine:
    """Look at the device, the memory, and the disk that a folder lies on.

    Raises:
        DeviceError: the device is not there.
    """
    chosen = resolve_device(device)
    host = main_memory_bytes()
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    total, name = host, f"CPU, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    if chosen.type == "cuda":
        total, name = torch.cuda.get_device_properties(chosen).total_memory, torch.cuda.get_device_name(chosen)
    elif chosen.type == "mps":
        name = "Apple GPU"
    return Machine(chosen, name, total, host, shutil.disk_usage(folder).free, load, resident_bytes())


def drawing_seconds(
    patch_voxels: int, window_hu: tuple[float, float], augmentation: Augmentation | None = None
) -> float:
    """Measure what it takes to make a training patch of a scan's voxels, on average over some."""
    size = (patch_voxels, patch_voxels, patch_voxels)
    cut = PatchCut(size, HUWindow(*window_hu), (1.0, 1.0, 1.0), augmentation)
    image, labels = np.zeros(size, dtype=np.int16), np.zeros(size, dtype=np.uint8)
    is_lesion, generator = np.arange(256) == 1, np.random.default_rng(0)
    started = time.perf_counter()
    for _ in range(_PATCHES_DRAWN):
        patch, cut_labels = cut.cut(image, labels, start=(0, 0, 0), generator=generator, varying=generator)
        np.ascontiguousarray(patch)
        is_lesion[np.ascontiguousarray(cut_labels)]
    return (time.perf_counter() - started) / _PATCHES_DRAWN


def warping_seconds(patch_voxels: int) -> float:
    """Measure what it takes to bend, turn and scale a patch of a lesion, beyond cutting it."""
    image, generator = np.zeros((patch_voxels,) * 3, dtype=np.int16), np.random.default_rng(0)
    started = time.perf_counter()
    warp = draw_warp((0, 0, 0), patch_voxels=patch_voxels, spacing_mm=(1.0, 1.0, 1.0), generator=generator)
    warp.hu(image)
    return time.perf_counter() - started


def compressing_seconds_a_voxel() -> float:
    """Measure what it takes to compress a voxel of a scan as `write_volume` does."""
    noise = np.random.default_rng(0).normal(0, 30, 2**19).astype(np.int16)
    started = time.perf_counter()
    gzip.compress(noise.tobytes(), compresslevel=1)
    return (time.perf_counter() - started) / noise.size
