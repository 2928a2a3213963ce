"""What the stages will take of the cases that were found, and what of it this machine does not have."""

import math
from collections.abc import Sequence

import numpy as np

from promptlesion.check.facts import CaseFacts
from promptlesion.check.finding import Finding
from promptlesion.config import Config
from promptlesion.cost.estimate import Extent, StageEstimate, gib
from promptlesion.cost.machine import Machine
from promptlesion.data.splits import Split

_LONG_SECONDS = 7 * 86400.0


def extent_of(
    cases: Sequence[CaseFacts],
    split: Split,
    *,
    spacing_mm: tuple[float, float, float],
    num_types: int,
    num_labels: int,
    window_hu: tuple[float, float],
) -> Extent:
    """Collect what the stages' costs depend on."""
    grids = [(case.shape, case.spacing_mm) for case in cases if case.shape is not None and case.spacing_mm is not None]
    prepared = [
        math.prod(max(1, round(n * mm / wanted)) for n, mm, wanted in zip(shape, sides, spacing_mm, strict=True))
        for shape, sides in grids
    ]
    training = set(split.train)
    return Extent(
        num_train=max(1, len(split.train)),
        num_validation=len(split.validation),
        num_lesions=sum(len(case.lesions) for case in cases if case.name in training),
        num_types=max(1, num_types),
        num_labels=max(2, num_labels),
        prepared_voxels=tuple(prepared),
        spacing_mm=spacing_mm,
        window_hu=window_hu,
        scan_voxels=float(np.median([math.prod(shape) for shape, _ in grids] or [0])),
        seconds_read=float(np.median([case.seconds_read for case in cases if case.seconds_read] or [0.0])),
    )


def estimate_findings(stages: Sequence[StageEstimate], machine: Machine, config: Config) -> list[Finding]:
    """Say what does not fit into memory, on the disk, or into a week."""
    found = []
    for stage in stages:
        if stage.memory_bytes > machine.device_bytes:
            message = (
                f"{stage.stage}: expected to fit into the {gib(machine.device_bytes)} of memory of this machine, found "
                f"{gib(stage.memory_bytes)} needed"
            )
            found.append(Finding("warning", "memory", "", message, _smaller(stage, machine, config)))
        elif stage.host_bytes > machine.host_bytes:
            message = (
                f"{stage.stage}: expected to fit into the {gib(machine.host_bytes)} of main memory, found "
                f"{gib(stage.host_bytes)} needed"
            )
            remedy = "fewer diffusion.patches_per_lesion, or a coarser spacing_mm in lesions.toml"
            found.append(Finding("warning", "memory", "", message, remedy))
        if stage.seconds > _LONG_SECONDS:
            message = (
                f"{stage.stage}: expected to end within a week, found {stage.seconds / 86400:,.0f} days on this "
                f"machine, {machine.name}"
            )
            remedy = "use a GPU, or start from --preset demo, which is made for minutes, and enlarge it"
            found.append(Finding("warning", "slow", "", message, remedy))
    disk = sum(stage.disk_bytes for stage in stages)
    if disk > machine.free_disk_bytes:
        message = f"expected room for {gib(disk)} of caches and checkpoints, found {gib(machine.free_disk_bytes)} free"
        found.append(Finding("warning", "disk", "", message, "name another disk with --out and --cache"))
    return found


def _smaller(stage: StageEstimate, machine: Machine, config: Config) -> str:
    """Name the setting that makes a stage fit."""
    sizes = {
        "autoencoder": config.autoencoder.batch_size,
        "diffusion": config.diffusion.batch_size,
        "segmentation": config.segmentation.batch_size,
    }
    if stage.stage == "synthesis":
        return f"a smaller --set diffusion.patch_voxels, now {stage.patch_voxels}"
    if stage.stage not in sizes:
        return "a coarser spacing_mm in lesions.toml"
    fixed = machine.resident_bytes if machine.device.type == "cpu" else 0
    fitting = int(sizes[stage.stage] * (machine.device_bytes - fixed) / max(stage.memory_bytes - fixed, 1))
    if fitting >= 1:
        return f"--set {stage.stage}.batch_size={fitting}"
    return f"a smaller --set {stage.stage}.patch_voxels, now {stage.patch_voxels}"
