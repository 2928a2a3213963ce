"""How many lesions go through the network together, and how many scans are open for it."""

import torch

_LARGE_PATCH_VOXELS = 96**3
_MOST_ON_CPU, _MOST_ON_ACCELERATOR = 8, 64
_GIB_PER_LARGE_PATCH = 4
_MOST_LARGE_PATCHES = 16


def lesions_at_once(device: torch.device, *, patch_voxels: int) -> int:
    """Return how many patches of this edge to sample together.

    On a CPU a latent of 24 x 24 x 24 voxels keeps the network busy (two of them took 97 % of the time a lesion that one
    did, bf16, one thread); eight of 12 x 12 x 12 took 46 %. An accelerator gets as many as its memory allows.
    """
    large, most = 1, _MOST_ON_CPU
    if device.type != "cpu":
        large, most = 2, _MOST_ON_ACCELERATOR
    if device.type == "cuda":
        memory_gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        large = max(1, min(_MOST_LARGE_PATCHES, int(memory_gib / _GIB_PER_LARGE_PATCH)))
    return max(1, min(most, large * _LARGE_PATCH_VOXELS // patch_voxels**3))


def scans_at_once(device: torch.device) -> int:
    """Return of how many scans at most the lesions are painted together; all are in memory meanwhile."""
    return 4 if device.type == "cpu" else 16
