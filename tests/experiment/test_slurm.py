"""A tiny experiment and a cohort through a real Slurm, started from Debian's packages: the same bytes as here."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.synthesis.contract import contents

from promptlesion.config import as_toml
from promptlesion.experiment.experiment import Experiment
from promptlesion.training.run import read_metrics

CONF = """
ClusterName=box
SlurmctldHost=localhost
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort=16917
SlurmdPort=16918
NodeName=localhost CPUs={cores} State=UNKNOWN
PartitionName=main Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "su")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: Debian's slurm-wlm and munge"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="starts a Slurm, which takes root"),
]
CLUSTER = ["gpus=0", "cpus=1", "hours=0.5", "jobs=2"]
TIMES = ("table2-time.csv", "times.csv")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Start a cluster of this machine; call its commands."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, cores=os.cpu_count()), encoding="utf-8")
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))

    def call(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    munge = Path("/run/munge")
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge")
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged"], check=False, capture_output=True)  # or it runs
    call("slurmctld")
    call("slurmd", "-N", "localhost")
    try:
        wait_until(lambda: "idle" in call("sinfo", "--noheader"), seconds=60)
        yield call
        call("scancel", "--user", "root")
    finally:
        for name in ("slurmd", "slurmctld"):
            os.kill(int((folder / f"{name}.pid").read_text()), 15)


def wait_until(is_so: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def promptlesion(*arguments: object) -> str:
    """Run a command as a user does, with one thread, as a job of one core has."""
    command = [sys.executable, "-m", "promptlesion", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1500, env=environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def on_cluster() -> list[str]:
    return ["--cluster", "slurm", *(f"--set=cluster.{setting}" for setting in CLUSTER)]


def test_an_experiment_and_a_cohort_on_a_cluster_are_those_of_one_machine(
    slurm: Callable[..., str], tiny_experiment: Experiment, tmp_path: Path
) -> None:
    data, lesions = tiny_experiment.data, tiny_experiment.lesions
    (tmp_path / "tiny.toml").write_text(as_toml(tiny_experiment.config), encoding="utf-8")
    given = ["--data", data, "--lesions", lesions, "--config", tmp_path / "tiny.toml", "--device", "cpu"]
    question = ["--methods", "real,promptlesion-onehot", "--seeds", 1]
    here, there = tmp_path / "here", tmp_path / "there"
    promptlesion("experiment", *given, *question, "--out", here)

    submitted = promptlesion("experiment", *given, *question, "--out", there, *on_cluster())
    jobs = {name: job for job, name in (line.split("  ") for line in submitted.splitlines()[:-1])}
    assert next(iter(jobs)) == "2-subjects/autoencoder" and list(jobs)[-1] == "report"
    _requeue_while_it_trains(slurm, jobs["2-subjects/autoencoder"], there / "2-subjects" / "autoencoder")
    wait_until(lambda: not slurm("squeue", "--noheader"), seconds=1200)
    said = "\n".join(path.read_text() for path in (there / "jobs").glob("*.out"))
    assert not json.loads((there / "results.json").read_text())["unfinished"], said
    for path in sorted((here / "tables").glob("*.csv")):
        if path.name not in TIMES:
            assert (there / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    weights = [out / "2-subjects" / "autoencoder" / "checkpoint" / "weights.safetensors" for out in (here, there)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    cohort = ["synthesize", *given, "--model", here / "2-subjects" / "promptlesion-onehot", "--count", "bright=4"]
    promptlesion(*cohort, "--out", tmp_path / "cohort-here", "--workers", 1)
    promptlesion(*cohort, "--out", tmp_path / "cohort-there", *on_cluster())
    wait_until(lambda: not slurm("squeue", "--noheader"), seconds=600)
    cohorts = [contents(tmp_path / name) for name in ("cohort-here", "cohort-there")]
    sheets = [cohort.pop("contact_sheet.png") for cohort in cohorts]  # which names the folder
    assert all(sheets) and cohorts[0] == cohorts[1]


def _requeue_while_it_trains(slurm: Callable[..., str], job: str, run: Path) -> None:
    """Take the machine from a job after a few steps, and give it another at once."""
    wait_until(lambda: len(read_metrics(run)) > 4, seconds=300)
    slurm("scontrol", "requeue", job)
    wait_until(lambda: "PENDING" in slurm("squeue", "--noheader", "--format=%T", f"--jobs={job}"), seconds=60)
    assert read_metrics(run)[-1]["step"] < 20  # of 20 steps
    slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
