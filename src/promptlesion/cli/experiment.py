"""Verbs that run the whole loop: small, or to learn what helps."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option, Typer

from promptlesion.cli.console import say, show
from promptlesion.cli.options import Cluster, Data, Device, Lesions, Out, Seed, configured, folder, number
from promptlesion.methods import compared_names

if TYPE_CHECKING:
    from promptlesion.config import Config

demo_app, app = Typer(), Typer()
_DATA = "A real dataset folder; without one, the built-in phantom."
_METHODS = "What to compare, with commas; real is training on real scans alone."
_SEEDS = "Trainings of each segmentation network, each with its own cohort."
_RATIOS = "Synthetic scans per real one, with commas: 0,0.5,1,2,4."
_FRACTIONS = "Shares of the real training subjects, with commas: 0.1,0.25,0.5,1."
_LESIONS_PER_TYPE = (
    "Lesions of each type to paint into a cohort. By default as many as the real scans have; with few of "
    "these ask for more: patches are drawn at --ratios however many there are."
)
_WORKERS = "Pieces of work at a time; on a CPU several small ones are faster."
_REPORT_ONLY = "Do no work: report on what is done so far, also while others work on OUT."
_PLAN = "Do no work: print the pieces of work as JSON, with what each needs and takes."
_CELL = "Do the one piece of work of this name, and end."


@demo_app.command()
@configured("demo")
def demo(
    config: "Config",
    out: Out = Path("runs/demo"),
    data: Annotated[Path | None, folder(_DATA)] = None,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Run the whole loop, small: three stages, synthesis, with and without synthetic data, report.

    [bold]Examples[/bold]

    promptlesion demo

    promptlesion demo --data Dataset101_Sarcoma --lesions examples/sarcoma.toml --out runs/sarcoma

    promptlesion demo --set diffusion.prompt_encoder=one-hot --out runs/demo-one-hot
    """
    from promptlesion.experiment.terminal import experiment_parts
    from promptlesion.front import experiments

    results = experiments.demo(out, data=data, lesions=lesions, seed=seed, device=device, config=config)
    show(*experiment_parts(results), f"Report: {out / 'report.html'}")


@app.command()
@configured("demo")
def experiment(
    config: "Config",
    data: Data,
    out: Out = Path("runs/experiment"),
    methods: Annotated[str, Option(help=_METHODS)] = ",".join(compared_names()),
    seeds: Annotated[int, number(_SEEDS)] = 3,
    ratios: Annotated[str, Option(help=_RATIOS)] = "1",
    real_fractions: Annotated[str, Option(help=_FRACTIONS)] = "1",
    lesions_per_type: Annotated[int | None, number(_LESIONS_PER_TYPE)] = None,
    workers: Annotated[int, number(_WORKERS)] = 1,
    report_only: Annotated[bool, Option("--report-only", help=_REPORT_ONLY)] = False,
    plan: Annotated[bool, Option("--plan", help=_PLAN)] = False,
    cell: Annotated[str | None, Option(help=_CELL, metavar="NAME")] = None,
    cluster: Cluster = None,
    lesions: Lesions = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Does it help? Real scans alone against every method, on held-out subjects: tables, figures, report.html.

    Trains what is missing, paints, trains a segmentation network for each method, ratio and seed, and tests all of them
    on the same held-out subjects. What fails is named, and the rest goes on; what is done is never redone. The same
    command on several machines that share OUT divides the work.

    [bold]Examples[/bold]

    promptlesion experiment --data data/liver --out runs/liver-experiment --workers 2

    promptlesion experiment --data data/liver --out runs/liver-experiment
    --methods real,copy-paste,promptlesion-transformer --ratios 0,0.5,1,2,4 --real-fractions 0.1,0.25,0.5,1

    promptlesion experiment --data data/liver --out runs/liver-experiment --preset paper --cluster slurm
    --set cluster.partition=gpu
    """
    from promptlesion import Question
    from promptlesion.experiment.terminal import experiment_parts
    from promptlesion.front import experiments

    question = Question(methods, seeds, ratios, real_fractions, lesions_per_type)
    given: Any = {"lesions": lesions, "seed": seed, "device": device, "config": config}
    if plan:
        pieces = [asdict(piece) for piece in experiments.plan_experiment(data, out, question, **given)]
        sys.stdout.write(json.dumps(pieces, indent=1) + "\n")
        return
    if cell is not None:
        was_left = experiments.do_cell(cell, data, out, question, **given)
        say(f"{cell} is done." if was_left else f"{cell} was done before; there is nothing to do.")
        return
    if cluster:
        jobs = experiments.submit_experiment(data, out, question, **given)
        say("\n".join(f"{job}  {name}" for name, job in jobs.items()))
        say(f"What jobs say is in {out / 'jobs'}; --report-only reports on what is done so far.")
        return
    results = experiments.experiment(data, out, question, workers=workers, report_only=report_only, **given)
    show(*experiment_parts(results))
    if report_only and results.unfinished:
        say(f"{len(results.unfinished)} pieces of work are not done yet.")
    say(f"Report: {out / 'report.html'}")
    if results.failures:
        for name, reason in results.failures.items():
            sys.stderr.write(f"{name}: {reason}\n")
        raise Exit(1)
