"""Is a cohort the same for any number of workers, and after they were killed? Compares every file by its SHA-256.

    python benchmarks/cohort_workers.py --data runs/demo/data --model runs/demo/diffusion --out /tmp/cohorts

paints one cohort with 1, 2 and 4 workers, and once more with 2 while SIGKILL ends the process that started them, then
all of them, and the same command is given again; at last a worker, whose work another one does. `run.json`, which holds
times, is left out.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_WORKERS = (1, 2, 4)


def main() -> None:
    """Paint the cohorts, print a line for each, and end with 1 where any file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder to paint into")
    parser.add_argument("--model", type=Path, required=True, help="finished diffusion run")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the cohorts")
    parser.add_argument("--cases", type=int, default=64, help="synthetic cases, one lesion each")
    options = parser.parse_args()
    names = json.loads((options.model / "checkpoint" / "card.json").read_text())["dataset"]["lesions"]
    per_type = [len(range(index, options.cases, len(names))) for index in range(len(names))]
    counts = [f"--count={lesion['name']}={number}" for lesion, number in zip(names, per_type, strict=True)]
    command = [sys.executable, "-m", "promptlesion", "synthesize", "--preset", "demo", "--device", "cpu", *counts]
    command += ["--set", "synthesis.lesions_per_case=1", "--data", str(options.data), "--model", str(options.model)]
    found = {}
    for workers in _WORKERS:
        out = options.out / f"{workers}-workers" / "synthetic"
        started = time.perf_counter()
        subprocess.run([*command, "--workers", str(workers), "--out", str(out)], check=True, capture_output=True)
        found[f"{workers} workers"] = _hashes(out)
        _say(f"{workers} workers: {time.perf_counter() - started:.0f} s, {_summary(out)}")
    out = options.out / "killed" / "synthetic"
    told = _killed_three_times([*command, "--workers", "2", "--out", str(out)], out, options.cases)
    _say(f"2 workers: {told}, {_summary(out)}")
    found["killed"] = _hashes(out)
    first = next(iter(found.values()))
    differing = {
        name: sorted(k for k in first.keys() | files.keys() if first.get(k) != files.get(k))
        for name, files in found.items()
    }
    for name, files in differing.items():
        _say(f"{name}: {len(found[name])} files, " + (f"other: {files}" if files else "identical"))
    sys.exit(any(differing.values()))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _killed_three_times(command: Sequence[str], out: Path, num_cases: int) -> str:
    """Run the command to a quarter and a half, ended by SIGKILL; then to its end, though a worker is killed."""
    told = []
    for share, victims in ((0.25, "their parent"), (0.5, "all"), (0.75, "a worker")):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wanted = max(share * num_cases, _num_done(out) + 2)  # the survivors of the last time did their share
        while _num_done(out) < wanted:
            if process.poll() is not None:
                raise SystemExit(f"the cohort ended by itself after {told}: {process.communicate()[1]}")
            time.sleep(0.005)
        children = _workers_of(process.pid)
        pids = {"a worker": children[-1:], "their parent": [process.pid], "all": [process.pid, *children]}[victims]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        said = process.communicate()[1].strip().splitlines()[-1:]
        while any(_is_running(pid) for pid in children):
            time.sleep(0.05)
        told.append(f"{victims} killed (exit {process.returncode}), {_num_done(out)} cases done, said {said}")
    if process.returncode:
        raise SystemExit(f"expected the last command to end well; found {told[-1]}")
    return "; ".join(told)


def _num_done(out: Path) -> int:
    return len(list((out / "provenance").glob("synthetic*.json")))


def _workers_of(pid: int) -> list[int]:
    """Return the worker processes of a process."""
    return [child for child in _children(pid) if "spawn_main" in _command(child)]


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.is_file() else []


def _command(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_text() if path.is_file() else ""


def _is_running(pid: int) -> bool:
    path = Path(f"/proc/{pid}/cmdline")
    return path.is_file() and bool(path.read_bytes())


def _hashes(out: Path) -> dict[str, str]:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _summary(out: Path) -> str:
    lines = [json.loads(line) for line in (out / "provenance.jsonl").read_text().splitlines()]
    return f"{len(lines)} cases, {sum(lesion['is_accepted'] for line in lines for lesion in line['lesions'])} lesions"


if __name__ == "__main__":
    main()
