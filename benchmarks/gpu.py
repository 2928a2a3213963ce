"""All that is to be measured on a GPU, in one call that ends by itself in time.

    python benchmarks/gpu.py --out runs/gpu --minutes 9

Volumes a minute at the preset's patch, with the paper's steps and with the default sampler, by batch and precision;
memory; the share of the card's own ceiling in bfloat16; training steps a second of stages 1 and 2, and the days that
the paper's schedule would take. What matters most comes first; when the minutes are over, the rest is left out. Writes
gpu.json and gpu.md after every part. On a CPU it runs at the size of `--set`, which is its test.
"""

import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from timing.suite import Suite

_BATCHES = (1, 4, 16, 32, 64)
_ATLAS_CASES = 5195
"""Of AbdomenAtlas 1.0, which the paper's autoencoder was trained on."""
_SECONDS_A_DAY = 86400
Figures = dict[str, object]


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures.", file_okay=False)] = Path("runs/gpu"),
    minutes: Annotated[float, typer.Option("--minutes", help="After which no further part begins.")] = 9.0,
    preset: Annotated[str, typer.Option("--preset", help="Preset of the networks' sizes.")] = "default",
    settings: Annotated[list[str] | None, typer.Option("--set", help="One setting over it; repeatable.")] = None,
    steps: Annotated[int, typer.Option("--steps", help="The paper's sampling steps.")] = 400,
    train_steps: Annotated[int, typer.Option("--train-steps", help="Of either training.")] = 120,
    product: Annotated[int, typer.Option("--product", help="Edge of the matrices of the ceiling.")] = 8192,
    device: Annotated[str, typer.Option("--device", help="cuda, or cpu for a trial.")] = "cuda",
) -> None:
    """Measure what time allows, and write it."""
    import torch
    from timing.suite import Suite
    from timing.tables import describe_machine

    from promptlesion.config import resolve_config
    from promptlesion.training.atomic import write_json, write_text
    from promptlesion.training.device import resolve_device

    deadline = time.perf_counter() + 60 * minutes
    found: Figures = {"command": " ".join(["python", *sys.argv]), "preset": preset}
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite(
            resolve_config(preset=preset, settings=settings or ()),
            resolve_device(device),
            Path(folder),
            1,
            60,
        )
        found["machine"] = describe_machine(suite.device)
        parts: dict[str, Callable[[], object]] = {
            "ceiling": partial(ceilings, suite, product),
            "denoiser step": partial(denoiser_steps, suite, product),
            "default sampler, bfloat16": partial(volumes, suite, "bfloat16", None, deadline),
            f"{steps} steps, bfloat16": partial(volumes, suite, "bfloat16", steps, deadline),
            "diffusion training": partial(diffusion_training, suite, train_steps),
            "autoencoder training": partial(autoencoder_training, suite, train_steps),
            "default sampler, float32": partial(volumes, suite, "float32", None, deadline),
            f"{steps} steps, float32": partial(volumes, suite, "float32", steps, deadline),
        }
        for name, measure in parts.items():
            if name.endswith("bfloat16") and "bfloat16" not in suite.precisions:
                found[name] = "left out: no arithmetic for it on this device"
                continue
            if time.perf_counter() > deadline:
                found[name] = "left out: no time"
                continue
            started = time.perf_counter()
            try:
                found[name] = measure()
            except Exception as error:  # whatever it is: the other parts are worth having all the same
                found[name] = f"failed: {type(error).__name__}: {error}"
            typer.echo(f"{name}: {time.perf_counter() - started:.0f} s: {found[name]}")
            write_json(out / "gpu.json", found)
            write_text(out / "gpu.md", "\n".join(["# On a GPU", "", *lines_of(found), ""]))
            if suite.device.type == "cuda":
                torch.cuda.empty_cache()


def lines_of(found: Mapping[str, object], indent: str = "") -> list[str]:
    """Return nested figures as a Markdown list."""
    lines: list[str] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {name}", *lines_of(value, indent + "  ")]
        else:
            lines.append(f"{indent}- {name}: {f'{value:.4g}' if isinstance(value, float) else value}")
    return lines


def ceilings(suite: "Suite", edge: int) -> Figures:
    """Measure what the card does at its best."""
    import torch
    from timing.suite import best_product, copy_rate

    width = suite.config.diffusion.channels[0]
    return {
        f"product of {edge} x {edge} matrices in bfloat16, TFLOP/s": best_product(edge, torch.bfloat16, suite.device)
        / 1e12,
        f"convolution of {width} channels in bfloat16, TFLOP/s": suite.ceiling(width, "bfloat16") / 1e12,
        f"convolution of {width} channels in float32, TFLOP/s": suite.ceiling(width, "float32") / 1e12,
        "copy, GB/s read and written": copy_rate(suite.device) / 1e9,
        "float32 convolutions are in TF32": torch.backends.cudnn.allow_tf32 and suite.device.type == "cuda",
    }


def volumes(suite: "Suite", precision: str, num_steps: int | None, deadline: float) -> Figures:
    """Paint batches that grow while they get faster, fit, and end in time; by the default sampler or the paper's."""
    import torch
    from timing.clock import extra_mib, timed
    from timing.lesion import as_in_the_paper, painting, promptlesion_run

    from promptlesion.methods import load_method

    chosen = {
        name: getattr(suite.config, name).model_copy(update={"precision": precision})
        for name in ("autoencoder", "diffusion")
    }
    run = promptlesion_run(suite, suite.config.model_copy(update=chosen), f"run-{precision}")
    sampling = suite.config.synthesis if num_steps is None else as_in_the_paper(num_steps)
    synthesizer = load_method(run, sampling, str(suite.device))
    figures: Figures = {}
    rates: dict[int, float] = {}
    for batch in _BATCHES:
        paint = painting(synthesizer, suite.config.diffusion.patch_voxels, batch)
        try:
            extra = extra_mib(paint, suite.device)  # compiles and warms up
            seconds = min(timed(paint, suite.device) for _ in range(2))
        except torch.OutOfMemoryError:
            figures[f"batch {batch}"] = "out of memory"
            break
        rates[batch] = 60 * batch / seconds
        figures[f"batch {batch}"] = {"volumes a minute": rates[batch], "seconds": seconds, "extra MiB": extra or 0.0}
        is_slower = len(rates) > 1 and rates[batch] < 1.02 * max(rate for b, rate in rates.items() if b < batch)
        if is_slower or time.perf_counter() + 12 * seconds > deadline:
            break
    best = max(rates, key=lambda batch: rates[batch])
    return {"best batch": best, "best, volumes a minute": rates[best], **figures}


def denoiser_steps(suite: "Suite", edge: int) -> Figures:
    """Time a step of the denoiser by batch and precision, as sampling takes it, as a share of the card's ceilings.

    On CUDA sampling replays a graph, whose operations cannot be counted: those of the same step without it are.
    """
    import torch
    from timing.denoiser import bound_step, latent_denoiser
    from timing.suite import best_product

    from promptlesion.diffusion.cuda_graph import StepRecorder
    from promptlesion.training.device import place

    settings = suite.config.diffusion
    product = best_product(edge, torch.bfloat16, suite.device)
    figures: Figures = {}
    for precision in suite.precisions:
        denoiser = place(latent_denoiser(suite, settings, precision), suite.device)
        for batch in (1, 16):
            forms = {"ours": bound_step(suite, denoiser, settings, batch, precision)}
            if suite.device.type == "cuda":
                recorder = StepRecorder(choice="auto", device=suite.device)
                forms["graph"] = bound_step(suite, denoiser, settings, batch, precision, recorder)
            rows = suite.compare("denoiser", f"batch {batch}", forms, precision=precision, width=settings.channels[0])
            rate = (rows[0].timing.flops or 0) / rows[-1].timing.fastest
            figures[f"{precision}, batch {batch}"] = {
                "milliseconds": 1e3 * rows[-1].timing.fastest,
                "milliseconds without a graph": 1e3 * rows[0].timing.fastest,
                "TFLOP/s": rate / 1e12,
                "share of the convolution": rate / (rows[0].ceiling or math.inf),
                "share of the product in bfloat16": rate / product,
            }
    return figures


def diffusion_training(suite: "Suite", num_steps: int) -> Figures:
    """Train stage 2 from cached latents, as users do."""
    from timing.lesion import promptlesion_run, small_data
    from timing.made_up import LABELS

    from promptlesion.data.training_data import TrainingData
    from promptlesion.diffusion.train import train_diffusion
    from promptlesion.training.run import RunOptions

    promptlesion_run(suite)
    dataset, cases = small_data(suite)
    config = suite.config.diffusion.model_copy(update={"num_steps": num_steps, "checkpoint_every_steps": 10**6})
    _peak_mib(suite)  # that of the parts before is forgotten
    train_diffusion(
        TrainingData(cases, dataset.spec, LABELS),
        autoencoder_run=suite.folder / "promptlesion-autoencoder",
        config=config,
        options=RunOptions(suite.folder / "trained-diffusion", 0, str(suite.device)),
    )
    rate = steps_a_second(suite.folder / "trained-diffusion", after=num_steps // 4)
    whole = suite.config.diffusion.num_steps
    return {
        f"steps a second, batch {config.batch_size}": rate,
        f"hours for {whole} steps": whole / rate / 3600,
        "days": whole / rate / _SECONDS_A_DAY,
        "peak MiB": _peak_mib(suite),
    }


def autoencoder_training(suite: "Suite", num_steps: int) -> Figures:
    """Train stage 1, the second half with discriminators, as users do."""
    from timing.lesion import small_data

    from promptlesion.autoencoder.train import train_autoencoder
    from promptlesion.data.training_data import TrainingData
    from promptlesion.training.run import RunOptions

    dataset, cases = small_data(suite)
    config = suite.config.autoencoder.model_copy(
        update={
            "num_epochs": 2,
            "steps_per_epoch": max(2, num_steps // 2),
            "quantizer_start_epoch": 0,
            "adversarial_start_epoch": 1,
            "checkpoint_every_steps": 10**6,
        }
    )
    out = suite.folder / "trained-autoencoder"
    _peak_mib(suite)
    train_autoencoder(
        TrainingData(cases[:3], dataset.spec, LABELS),
        validation_cases=cases[3:],
        config=config,
        options=RunOptions(out, 0, str(suite.device)),
    )
    half = max(2, num_steps // 2)
    without, with_them = steps_a_second(out, after=half // 4, until=half), steps_a_second(out, after=half + half // 4)
    an_epoch = math.ceil(_ATLAS_CASES / suite.config.autoencoder.batch_size)
    asked = suite.config.autoencoder
    seconds = an_epoch * (
        asked.adversarial_start_epoch / without + (asked.num_epochs - asked.adversarial_start_epoch) / with_them
    )
    return {
        f"steps a second, batch {config.batch_size}, without discriminators": without,
        "with discriminators": with_them,
        f"days for {asked.num_epochs} epochs of {_ATLAS_CASES} cases": seconds / _SECONDS_A_DAY,
        "peak MiB": _peak_mib(suite),
    }


def _peak_mib(suite: "Suite") -> float | None:
    """Return the most memory the card held since it was last asked."""
    import torch

    if suite.device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(suite.device) / 2**20
    torch.cuda.reset_peak_memory_stats(suite.device)
    return peak


def steps_a_second(run: Path, *, after: int, until: int | None = None) -> float:
    """Return the speed of a training from the times that TensorBoard keeps of its steps, the first ones left out.

    On a GPU reports are logged some steps together: only the last of them was just done when it was logged.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tag = "loss" if "loss" in events.Tags()["scalars"] else "l1"
    logged = [(e.step, e.wall_time) for e in events.Scalars(tag)]
    found = [
        (step, at, next_at - at)
        for (step, at), (_, next_at) in pairwise([*logged, (0, math.inf)])
        if step > after and (until is None or step <= until)
    ]
    usual = (found[-1][1] - found[0][1]) / len(found)
    ends = [(step, at) for step, at, pause in found if pause > usual / 2]
    (first, started), (last, ended) = ends[0], ends[-1]
    return (last - first) / max(ended - started, 1e-9)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    typer.run(main)
