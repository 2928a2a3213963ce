"""Measures trained generators on the subjects that no stage trained on: one command a table.

    python benchmarks/generator.py bias --data DATA --cache CACHE --model NAME=RUN --preset demo --out OUT
    python benchmarks/generator.py samplers ...
    python benchmarks/generator.py prompts ...
    python benchmarks/generator.py surroundings ...
    python benchmarks/generator.py ablation --caption TEXT ...
    python benchmarks/generator.py gallery ...

Every command writes COMMAND.json, COMMAND.md and a picture into --out. What is in OUT/parts is not computed again
where the same is asked for.
"""

import inspect
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from measure.bench import Bench, open_bench
from measure.bias import measure_bias
from measure.gallery import measure_gallery
from measure.prompts import measure_prompts
from measure.samplers import measure_samplers
from measure.surroundings import measure_surroundings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
CountOption = Annotated[int, typer.Option("--count", min=1, help="New masks of each lesion type.")]


def _options(
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.", file_okay=False)],
    cache: Annotated[Path, typer.Option("--cache", help="Folder of prepared scans.", file_okay=False)],
    model: Annotated[list[str], typer.Option("--model", help="NAME=RUN, a finished diffusion run; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and parts.", file_okay=False)],
    lesions: Annotated[Path | None, typer.Option("--lesions", help="A lesions.toml elsewhere.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Preset of the sampling and the split.")] = "default",
    config: Annotated[Path | None, typer.Option("--config", help="TOML file over the preset.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting over both; repeatable.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of masks, noise and intervals.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Masks of a scan painted together.")] = 16,
) -> None:
    """Say which options every command has."""


def _measurement(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all commands, and the bench they describe as its first argument."""
    own = list(inspect.signature(function).parameters.values())[1:]
    shared = list(inspect.signature(_options).parameters.values())
    names = [parameter.name for parameter in own]

    @wraps(function)
    def command(**asked: Any) -> None:
        chosen = {name: asked.pop(name) for name in names}
        models, settings, batch_size = asked.pop("model"), asked.pop("settings") or (), asked.pop("batch")
        bench = open_bench(function.__name__, models=models, settings=settings, batch_size=batch_size, **asked)
        function(bench, **chosen)

    kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*shared, *own)]
    command.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in kept}
    return app.command()(command)


@_measurement
def bias(bench: Bench, count: CountOption = 40) -> None:
    """Mean HU inside lesions, per type: real against autoencoded, repainted in place, and newly placed."""
    measure_bias(bench, count, "HU bias inside lesions")


@_measurement
def ablation(
    bench: Bench,
    count: CountOption = 40,
    caption: Annotated[str, typer.Option("--caption", help="Headline of the table.")] = "Ablation",
) -> None:
    """`bias` of several runs, with a column for every setting in which they differ."""
    measure_bias(bench, count, caption)


@_measurement
def samplers(
    bench: Bench,
    count: CountOption = 40,
    sampler: Annotated[list[str] | None, typer.Option("--sampler", help="Repeatable; by default all three.")] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", min=1, help="Repeatable; by default 400, 100, 50, 20, 10.")
    ] = None,
) -> None:
    """Lesion-KID and seconds per lesion of every sampler at every number of steps, the same masks and noise."""
    measure_samplers(bench, sampler or ["ancestral", "ddim", "dpm-solver++"], steps or [400, 100, 50, 20, 10], count)


@_measurement
def prompts(
    bench: Bench,
    count: CountOption = 20,
    guidance: Annotated[float, typer.Option("--guidance", min=0, help="The second guidance scale, beside 1.")] = 2.0,
) -> None:
    """Every mask under every prompt: can a classifier trained on real lesions tell which type was asked for?"""
    measure_prompts(bench, guidance, count)


@_measurement
def surroundings(bench: Bench, count: CountOption = 20) -> None:
    """Error around new lesions, in HU: `init` healthy against noise, background re-injected or not, blended or not."""
    measure_surroundings(bench, count)


@_measurement
def gallery(bench: Bench) -> None:
    """One real lesion of each type beside what every model paints in its place."""
    measure_gallery(bench)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except ValueError as error:
        sys.exit(str(error))
