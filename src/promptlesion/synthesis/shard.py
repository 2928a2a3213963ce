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
"""Set where srun started the process; the batch script itself has the other variables too, but no shard."""


@dataclass(frozen=True)
class Shard:
    """What has a number that leaves `index` when divided by `count`."""

    index: int = 0
    count: int = 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return those of the items that are in this shard."""
        return list(items[self.index :: self.count])

    def part(self, index: int, count: int) -> "Shard":
        """Return one of `count` parts of this shard."""
        return Shard(self.index + self.count * index, self.count * count)


def own_shard(environment: Mapping[str, str] | None = None) -> Shard:
    """Return this process's shard, as torchrun, a Slurm array or srun in one say; without them all of it.

    Args:
        environment: instead of the process's own.

    Raises:
        ValueError: array indices that are not evenly spaced.
    """
    found = os.environ if environment is None else environment
    if all(name in found for name in _TORCHRUN):
        return _checked(Shard(int(found["RANK"]), int(found["WORLD_SIZE"])), "RANK")
    shard = Shard()
    if all(name in found for name in _SLURM_ARRAY):
        number, first, step, count = (int(found[name]) for name in _SLURM_ARRAY)
        shard = _checked(Shard((number - first) // step, count), "SLURM_ARRAY_TASK_ID")
    if _SLURM_STEP in found:
        num_tasks = int(found.get("SLURM_STEP_NUM_TASKS", found.get("SLURM_NTASKS", "1")))
        rank = Shard(int(found.get("SLURM_PROCID", "0")), num_tasks)
        shard = shard.part(_checked(rank, "SLURM_PROCID").index, num_tasks)
    return shard


def _checked(shard: Shard, name: str) -> Shard:
    if not 0 <= shard.index < shard.count:
        raise ValueError(
            f"{name}: expected the number of one of {shard.count} evenly spaced tasks, as in --array=0-15; found that "
            f"of task {shard.index}, counted from 0. Submit a whole array again: what is finished is not redone"
        )
    return shard
