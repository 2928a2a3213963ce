"""Lesions an hour of a cohort, by the number of worker processes."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

from promptlesion.data.dataset import Dataset
from promptlesion.methods import load_method
from promptlesion.synthesis.batch_size import SCANS_TOGETHER
from promptlesion.synthesis.cohort import synthesize_cohort
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import Synthesizer
from timing.clock import Timing
from timing.lesion import promptlesion_run, small_data
from timing.suite import Row, Suite

PART = "cohort"
_LEAST_SPEED_UP = 1.7


def measure_cohort(suite: Suite) -> None:
    """Paint as many cases a worker with one worker, then with one a core, each from its start to its last file.

    Every worker paints one group of cases; two where there is time for it, so that there is a rate once all started.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(2, min(cores, 4))
    run, (dataset, _) = promptlesion_run(suite), small_data(suite)
    cases_a_worker = suite.few(2 * SCANS_TOGETHER, SCANS_TOGETHER)
    found = {}
    for workers in (1, most):
        found[workers] = painted(
            suite.folder / f"cohort-{workers}",
            str(run),
            dataset,
            suite.config.synthesis,
            workers=workers,
            num_cases=cases_a_worker * workers,
            device=str(suite.device),
        )
    for workers, (seconds, steady) in found.items():
        timing, num_cases = Timing(seconds, seconds, seconds, 1, None, None), cases_a_worker * workers
        facts = {"lesions_a_minute": 60 * num_cases / seconds}
        if steady is not None:
            facts["lesions_a_minute_once_started"] = 60 * steady
        suite.rows.append(
            Row(PART, f"{num_cases} cases of one lesion, {workers} workers", "ours", "auto", timing, facts=facts)
        )
    if cores >= most:
        text = (
            f"cohort of {cases_a_worker} lesions a worker: {most} workers' throughput on {most} cores in that of 1 on 1"
        )
        least = _LEAST_SPEED_UP * most / 2
        suite.show(6, f"{text}, start included", most * found[1][0] / found[most][0], least)
        one, all_of_them = found[1][1], found[most][1]
        if one is not None and all_of_them is not None:
            suite.show(6, f"{text}, once started", all_of_them / one, least)


def painted(
    out: Path,
    run: str,
    dataset: Dataset,
    config: SynthesisConfig,
    *,
    workers: int,
    num_cases: int,
    device: str,
) -> tuple[float, float | None]:
    """Return the seconds of a cohort, and its lesions a second once each worker has done a group, if others follow.

    Cases of a group are written together, and those of two workers nearly so: counted from the very first record on,
    the others of that moment would count and the time they took would not.
    """
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
    first = workers * SCANS_TOGETHER
    steady = (len(times) - first) / max(times[-1] - times[first - 1], 1e-3) if len(times) > first else None
    return seconds, steady


def load_painter(run: str, config: SynthesisConfig, device: str) -> Synthesizer:
    """Load the method in a worker process."""
    return load_method(Path(run), config, device)
