"""How fast is every part of PromptLesion on this machine, beside its references and the machine's own ceiling?

    python benchmarks/speed.py --out runs/bench
    python benchmarks/speed.py --only denoiser --only quantizer --preset demo --threads 1 --out /tmp/bench

Nothing is trained: untrained networks take as long. Writes speed.json, and speed.md with a table of each part. What the
project must show is marked with its threshold. Forms of the same work take turns, so that their ratios hold
on a busy machine too.
"""

import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from timing.suite import Suite


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder for tables.", file_okay=False)] = Path("runs/bench"),
    only: Annotated[list[str] | None, typer.Option("--only", help="A part of the suite; repeatable.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Preset of the networks' sizes.")] = "default",
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting over it; repeatable.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Of torch; 0: as many as it takes.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="For the rounds of a comparison.")] = 1.5,
    longest_run: Annotated[float, typer.Option("--longest-run", help="Seconds; longer ones are left out.")] = 12.0,
    is_whole: Annotated[bool, typer.Option("--whole", help="Run what is else extrapolated or cut short.")] = False,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Dataset to draw from too; repeatable.")] = None,
    lesions: Annotated[
        list[Path] | None, typer.Option("--lesions", help="Its lesions.toml if elsewhere; once for every --data.")
    ] = None,
) -> None:
    """Measure, and write the tables."""
    import torch
    from timing.suite import Suite
    from timing.tables import write_tables

    from promptlesion.config import resolve_config
    from promptlesion.training.device import resolve_device
    from promptlesion.training.progress import progress_bar

    if threads:
        torch.set_num_threads(threads)
    parts = _parts()
    unknown = sorted(set(only or ()) - set(parts))
    if unknown:
        raise ValueError(f"--only {unknown[0]}: expected one of {', '.join(parts)}")
    if lesions and len(lesions) != len(data or ()):
        raise ValueError(f"--lesions: expected one for each of the {len(data or ())} --data, found {len(lesions)}")
    config = resolve_config(preset=preset, settings=settings or ())
    chosen = [name for name in parts if not only or name in only]
    started, took = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder, progress_bar("measuring", len(chosen)) as bar:
        suite = Suite(
            config,
            resolve_device(device),
            Path(folder),
            seconds,
            longest_run,
            data=list(zip(data or (), lesions or [None] * len(data or ()), strict=True)),
            is_whole=is_whole,
        )
        for done, name in enumerate(chosen, start=1):
            part_started = time.perf_counter()
            parts[name](suite)
            took[name] = time.perf_counter() - part_started
            write_tables(out, suite, preset=preset, took=took, command=" ".join(["python", *sys.argv]))
            bar.update(done)
    typer.echo((out / "speed.md").read_text(encoding="utf-8"))
    typer.echo(f"{time.perf_counter() - started:.0f} s. {out / 'speed.md'}", err=True)


def _parts() -> dict[str, "Callable[[Suite], None]"]:
    from timing import cohort, denoiser, lesion, patches, startup, training, vqgan

    return {
        denoiser.PART: denoiser.measure_denoisers,
        lesion.PART: lesion.measure_lesions,
        vqgan.PART: vqgan.measure_vqgan,
        vqgan.QUANTIZER: vqgan.measure_quantizer,
        training.PART: training.measure_diffusion,
        training.SEGMENTATION: training.measure_segmentation,
        patches.PART: patches.measure_patches,
        patches.WAITING: patches.measure_waiting,
        patches.PREDICTION: patches.measure_prediction,
        cohort.PART: cohort.measure_cohort,
        startup.PART: startup.measure_startup,
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        typer.run(main)
    except ValueError as error:
        sys.exit(str(error))
