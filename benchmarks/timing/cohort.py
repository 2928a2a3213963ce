"""Lesions an hour of a cohort, by the number of worker processes."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

from promptlesion.baselines.methods import load_method
from promptlesion.data.dataset import Dataset
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from timing.clock import Timing
from timing.lesion import promptlesion_run, small_data
from timing.suite import Row, Suite

PART = "cohort"
_LEAST_SPEED_UP = 1.7
_CASES_A_WORKER = 8


def measure_cohort(suite: Suite) -> None:
    """Paint the same cohort with one worker, then with one a core, each from its start to its last file."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(2, min(cores, 4))
    run, (dataset, _) = promptlesion_run(suite), small_data(suite)
    num_cases = _CASES_A_WORKER * most
    found = {}
    for workers in (1, most):
        found[workers] = painted(
            suite.folder / f"cohort-{workers}",
            str(run),
            dataset,
            suite.config.synthesis,
            workers=workers,
            num_cases=num_cases,
            device=str(suite.device),
        )
    for workers, (seconds, steady) in found.items():
        timing = Timing(seconds, seconds, seconds, 1, None, None)
        facts = {"lesions_a_minute": 60 * num_cases / seconds, "lesions_a_minute_once_started": 60 * steady}
        suite.rows.append(
            Row(PART, f"{num_cases} cases of one lesion, {workers} workers", "ours", "auto", timing, facts=facts)
        )
    if cores >= most:
        text = f"cohort of {num_cases} lesions: throughput of {most} workers on {most} cores in that of 1 on 1"
        least = _LEAST_SPEED_UP * most / 2
        suite.show(6, f"{text}, start included", found[1][0] / found[most][0], least)
        suite.show(6, f"{text}, once started", found[most][1] / found[1][1], least)


def painted(
    out: Path,
    run: str,
    dataset: Dataset,
    config: SynthesisConfig,
    *,
    workers: int,
    num_cases: int,
    device: str,
) -> tuple[float, float]:
    """Return the seconds of a cohort, and its lesions a second between the first and the last record."""
    shutil.rmtree(out, ignore_errors=True)
    config = config.model_copy(update={"accept_all": True, "lesions_per_case": 1})
    load = partial(load_painter, run, config)
    names = [lesion.name for lesion in dataset.spec.lesions]
    counts = {name: len(range(index, num_cases, len(names))) for index, name in enumerate(names)}
    synthesizer = load(device)
    started = time.perf_counter()
    synthesize_cohort(
        dataset, synthesizer, counts=counts, config=config, out=out, seed=0, load=load, num_workers=workers
    )
    seconds = time.perf_counter() - started
    times = sorted(path.stat().st_mtime for path in (out / "provenance").glob("*.json"))
    return seconds, (len(times) - 1) / max(times[-1] - times[0], 1e-3)


def load_painter(run: str, config: SynthesisConfig, device: str) -> Synthesizer:
    """Load the method in a worker process."""
    return load_method(Path(run), config, device)
