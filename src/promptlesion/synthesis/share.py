"""Which part of a cohort is this command's, where several work on it.

They never talk to each other: each takes every so-manieth group of cases, and the cohort's folder shows what is done.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

_TORCHRUN = ("RANK", "WORLD_SIZE")
_SLURM_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
_SLURM_STEP = "SLURM_STEP_ID"
"""Set where srun started the process; the batch script itself has the other variables too, but no share."""


@dataclass(frozen=True)
class Share:
    """What has a number that leaves `index` when divided by `count`."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return those of the items that are in this share."""
        return list(items[self.index :: self.count])

    def part(self, index: int, count: int) -> "Share":
        """Return one of `count` parts of this share."""
        return Share(self.index + self.count * index, self.count * count)


def own_share(environment: Mapping[str, str] | None = None) -> Share:
    """Return this process's share, as torchrun, a Slurm array or srun in one say; without them all of it.

    Args:
        environment: instead of the process's own.

    Raises:
        ValueError: array indices that are not evenly spaced.
    """
    found = os.environ if environment is None else environment
    if all(name in found for name in _TORCHRUN):
        return _checked(Share(int(found["RANK"]), int(found["WORLD_SIZE"])), "RANK")
    share = Share()
    if all(name in found for name in _SLURM_ARRAY):
        number, first, step, count = (int(found[name]) for name in _SLURM_ARRAY)
        share = _checked(Share((number - first) // step, count), "SLURM_ARRAY_TASK_ID")
    if _SLURM_STEP in found:
        num_tasks = int(found.get("SLURM_STEP_NUM_TASKS", found.get("SLURM_NTASKS", "1")))
        rank = Share(int(found.get("SLURM_PROCID", "0")), num_tasks)
        share = share.part(_checked(rank, "SLURM_PROCID").index, num_tasks)
    return share


def _checked(share: Share, name: str) -> Share:
    if not 0 <= share.index < share.count:
        raise ValueError(
            f"{name}: expected the number of one of {share.count} evenly spaced tasks, as in --array=0-15; found that "
            f"of task {share.index}, counted from 0. Submit a whole array again: what is finished is not redone"
        )
    return share
