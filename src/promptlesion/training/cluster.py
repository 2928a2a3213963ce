"""Jobs on a Slurm cluster, by submitit: each starts when those it needs are done, and goes on when preempted."""

import logging
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from promptlesion.training.stopping import end_as_interrupted

if TYPE_CHECKING:
    from submitit import SlurmExecutor
    from submitit.helpers import DelayedSubmission

_MOST_TIMEOUTS = 100
"""Each time the job saves before it ends, so it does get further."""
_SAVING_SECONDS = 120
"""Before a time limit, for a training to save."""


class ClusterConfig(BaseModel):
    """What each job asks of the cluster; results are the same whatever stands here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str | None = Field(None, description="Slurm's partition; none: the cluster's own choice")
    account: str | None = Field(None, description="account that is charged; none: the user's own")
    gpus: int = Field(1, ge=0, description="GPUs of a job whose networks compute; what only pastes gets none")
    cpus: int = Field(4, ge=1, description="processor cores of a job")
    memory_gb: float | None = Field(
        None, gt=0, description="main memory of a job in GB; none: the cluster's own choice"
    )
    hours: float = Field(
        24, gt=0, description="time limit of a job in hours; one that reaches it saves and is requeued"
    )
    jobs: int = Field(4, ge=1, description="jobs that a cohort is shared between")
    options: tuple[str, ...] = Field((), description="further options of sbatch, as in qos=high or constraint=a100")


@dataclass(frozen=True)
class ClusterJob:
    """What one job does; it must survive pickling."""

    name: str
    work: Callable[[], object]
    needs: tuple[str, ...] = ()
    """Names of jobs that must have ended before."""
    is_after_failures: bool = False
    """Whether it starts too where what it needs failed."""
    wants_gpu: bool = True

    def __call__(self) -> None:
        """Do it, in the job."""
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("promptlesion").setLevel(logging.INFO)
        # submitit ignores SIGTERM, of which it expects nothing: its own signal comes before a time limit alone
        end_as_interrupted([signal.SIGTERM])
        try:
            self.work()
        except KeyboardInterrupt:
            sys.exit(
                f"{self.name}: interrupted; what is finished stays, and the job goes on from there if it is requeued"
            )

    def checkpoint(self) -> "DelayedSubmission":
        """Say what a requeued job does: the same, which goes on from what is saved."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit(jobs: Sequence[ClusterJob], folder: Path, config: ClusterConfig) -> dict[str, str]:
    """Submit jobs, those first that others need, and return their ids by name.

    Args:
        jobs: one of Slurm each.
        folder: of the jobs' output; all machines must see it.
        config: what each asks for.

    Raises:
        ImportError: submitit is not there.
        RuntimeError: Slurm is not there, or refuses.
    """
    ids: dict[str, str] = {}
    for job in jobs:
        executor = _executor(folder, config, job)
        needed = [ids[name] for name in job.needs if name in ids]
        if needed:
            condition = "afterany" if job.is_after_failures else "afterok"
            executor.update_parameters(dependency=":".join([condition, *needed]))
        ids[job.name] = executor.submit(job).job_id
    return ids


def submit_array(job: ClusterJob, folder: Path, config: ClusterConfig) -> str:
    """Submit as many jobs as `config.jobs` says that do the same, each its share of it, and return the array's id."""
    jobs = _executor(folder, config, job).submit_array([job] * config.jobs)
    return jobs[0].job_id.split("_")[0]


def _executor(folder: Path, config: ClusterConfig, job: ClusterJob) -> "SlurmExecutor":
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise ImportError('--cluster: expected submitit: pip install "promptlesion[cluster]"') from error
    executor = SlurmExecutor(folder, max_num_timeout=_MOST_TIMEOUTS)
    executor.update_parameters(
        job_name=re.sub("[^A-Za-z0-9.]+", "-", job.name),
        partition=config.partition,
        account=config.account,
        gpus_per_node=config.gpus if job.wants_gpu and config.gpus else None,
        cpus_per_task=config.cpus,
        mem=None if config.memory_gb is None else f"{round(1024 * config.memory_gb)}M",
        time=max(1, round(60 * config.hours)),
        signal_delay_s=_SAVING_SECONDS,
        stderr_to_stdout=True,
        setup=[f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{config.cpus}}}"],  # a node may show a job all its cores
        wckey=None,
        additional_parameters={
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            **{name: value or True for name, _, value in (option.partition("=") for option in config.options)},
        },
    )
    return executor
