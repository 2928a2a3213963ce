"""Does the cost of a lesion follow the scan? Time and memory between reading and writing, in a small and a large scan.

    python benchmarks/scan_size.py --data DATA --model RUN --out OUT

The first training scan of DATA is cut and mirrored to 128 x 128 x 128 voxels, then to 512 x 512 x 400: once filled with
the body mirrored on and on, once with air around it. One lesion of the same size is painted into each, as `synthesize`
does it, in a process of its own. Needs Linux, where a process can reset its peak memory. Writes scan_size.json and
scan_size.md into OUT.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

SMALL, LARGE = (128, 128, 128), (512, 512, 400)
_INPUT_AND_OUTPUT = ("read_case", "write_case", "file_hash")
_WORK = ("place_lesion", "paint_together")
_MEBIBYTE = 1024


def main(
    data: Annotated[Path, typer.Option("--data", help="Dataset folder.", file_okay=False)],
    model: Annotated[Path, typer.Option("--model", help="Finished diffusion run.", file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for scans and tables.", file_okay=False)],
    lesion_type: Annotated[str | None, typer.Option("--type", help="Lesion type; the first by default.")] = None,
    diameter_mm: Annotated[
        float | None, typer.Option("--diameter", help="In millimetres; the middle of the type's range by default.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Processes a scan.")] = 5,
    preset: Annotated[str, typer.Option("--preset", help="Preset of the sampling.")] = "demo",
    small: Annotated[tuple[int, int, int], typer.Option("--small", help="Voxels of the small scan.")] = SMALL,
    large: Annotated[tuple[int, int, int], typer.Option("--large", help="Voxels of the large scan.")] = LARGE,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "cpu",
) -> None:
    """Measure, and write the table."""
    scans = {"small": [small], "large, filled": [large], "large, air around": [small, large]}
    roots = {}
    for name, shapes in scans.items():
        roots[name] = out / name.replace(", ", "-").replace(" ", "-")
        write_scan(data, roots[name], shapes=shapes, lesion_type=lesion_type, diameter_mm=diameter_mm)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in scans}
    for repeat in range(repeats):  # taking turns, so that a busy minute slows all of them
        for name, root in roots.items():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                runs[name].append(process.submit(paint_one, root, model, preset, device, repeat).result())
            typer.echo(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in runs[name][-1].items()))
    medians = {name: {key: median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
    ratios = {
        name: {
            key: medians[name][key] / medians["small"][key]
            for key in ("work_seconds", "work_cpu_seconds", "work_peak_mib")
        }
        for name in scans
    }
    content = {"scans": {name: list(shapes[-1]) for name, shapes in scans.items()}, "medians": medians}
    content |= {"ratios": ratios, "runs": runs, "model": str(model), "preset": preset, "repeats": repeats}
    (out / "scan_size.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (out / "scan_size.md").write_text(table(medians, ratios), encoding="utf-8")
    typer.echo(table(medians, ratios))


def table(medians: dict[str, dict[str, float]], ratios: dict[str, dict[str, float]]) -> str:
    """Return the figures as Markdown: medians of the processes, and ratios to the small scan."""
    lines = [
        "| scan | reading s | place s | paint s | between s | ratio | CPU s | ratio | peak MiB | ratio | writing s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in medians.items():
        figures = (
            *(f"{found[key]:.2f}" for key in ("read_seconds", "place_seconds", "paint_seconds", "work_seconds")),
            f"{ratios[name]['work_seconds']:.2f}",
            f"{found['work_cpu_seconds']:.2f}",
            f"{ratios[name]['work_cpu_seconds']:.2f}",
            f"{found['work_peak_mib']:.0f}",
            f"{ratios[name]['work_peak_mib']:.2f}",
            f"{found['write_seconds']:.2f}",
        )
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def write_scan(
    data: Path,
    root: Path,
    *,
    shapes: Sequence[tuple[int, int, int]],
    lesion_type: str | None,
    diameter_mm: float | None,
) -> None:
    """Write a dataset of one scan, and ask in its lesions.toml for lesions of one type and nearly one size.

    The scan is cut or mirrored on to the first shape; a second one is reached with air around it.
    """
    from promptlesion.data.dataset import open_dataset, read_case, write_case, write_dataset_json, write_spec

    if (root / "dataset.json").is_file():
        return
    dataset = open_dataset(data)
    names = [lesion.name for lesion in dataset.spec.lesions]
    own = dataset.spec.lesions[names.index(lesion_type) if lesion_type else 0]
    middle_mm = diameter_mm or sum(own.diameter_mm) / 2
    asked = own.model_copy(update={"diameter_mm": (0.95 * middle_mm, 1.05 * middle_mm)})
    image, labels = read_case(dataset, dataset.cases[0])
    arrays = []
    for volume, fill in ((image, int(image.array.min())), (labels, 0)):
        array = mirrored(volume.array, shapes[0])
        arrays.append(array if len(shapes) == 1 else surrounded(array, shapes[1], fill=fill))
    write_case(root, "scan", *(type(image)(array, np.diag([*image.spacing_mm, 1.0])) for array in arrays))
    lesions = tuple(asked if lesion.name == own.name else lesion for lesion in dataset.spec.lesions)
    write_spec(dataset.spec.model_copy(update={"lesions": lesions, "subject_pattern": None}), root / "lesions.toml")
    extra: dict[str, object] = {"asked_type": own.name}
    write_dataset_json(root, labels=dataset.labels, num_training=1, extra=extra)


def mirrored(array: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the middle of an array in another shape, mirrored on and on where it is too small."""
    middle = tuple(
        slice((have - want) // 2, (have - want) // 2 + want) if want < have else slice(None)
        for have, want in zip(array.shape, shape, strict=True)
    )
    return np.pad(array[middle], _missing(array[middle], shape), mode="symmetric")


def surrounded(array: np.ndarray, shape: tuple[int, int, int], *, fill: int) -> np.ndarray:
    """Return an array in the middle of a larger one."""
    return np.pad(array, _missing(array, shape), constant_values=fill)


def _missing(array: np.ndarray, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    counts = [want - have for have, want in zip(array.shape, shape, strict=True)]
    return [(count // 2, count - count // 2) for count in counts]


@dataclass
class Meter:
    """Seconds by function, and the memory between the end of reading and the start of writing."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    after_reading_kib: int = 0
    peak_kib: int = 0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time taken, and memory looked at where reading ends and writing starts."""

        def call(*args: Any, **options: Any) -> Any:
            if name == "write_case":
                self.peak_kib = memory_kib("VmHWM")
            start, cpu_start = time.perf_counter(), time.process_time()
            result = function(*args, **options)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - cpu_start
            if name == "read_case":
                self.after_reading_kib = memory_kib("VmRSS")
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is forgotten
            return result

        return call


def paint_one(root: Path, model: Path, preset: str, device: str, seed: int) -> dict[str, float]:
    """Make one case with one lesion; the time is that of a second one, when all libraries are awake."""
    from promptlesion.config import resolve_config
    from promptlesion.data.dataset import open_dataset
    from promptlesion.masks.sizes_and_shapes import build_drawing
    from promptlesion.methods import load_method
    from promptlesion.synthesis import synthetic_case
    from promptlesion.synthesis.plan import PlannedCase

    config = resolve_config(preset=preset, file=None, settings=["synthesis.accept_all=true"]).synthesis
    synthesizer = load_method(model, config, device, asked=None)
    dataset = open_dataset(root)
    asked = json.loads((root / "dataset.json").read_text(encoding="utf-8"))["asked_type"]
    kind = [lesion.name for lesion in dataset.spec.lesions].index(asked)
    limits = {"edge_mm": synthesizer.card.edge_mm, "max_extent_mm": synthesizer.card.max_extent_mm}
    drawing = build_drawing(dataset, synthesizer.card.statistics, config, **limits)
    plain = {name: getattr(synthetic_case, name) for name in (*_INPUT_AND_OUTPUT, *_WORK)}
    figures: dict[str, float] = {}
    for turn in ("cold", "warm"):
        meter = Meter()
        for name, function in plain.items():
            setattr(synthetic_case, name, meter.timed(name, function))
        recipe = synthetic_case.Recipe(dataset, drawing, config, root / "made" / f"{turn}_{seed}", seed)
        recipe.record_path(PlannedCase("synthetic", 0, (kind,))).unlink(missing_ok=True)
        start, cpu_start = time.perf_counter(), time.process_time()
        synthetic_case.CaseMaker(recipe, synthesizer).make([PlannedCase("synthetic", 0, (kind,))])
        work, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        work -= sum(meter.seconds.get(name, 0.0) for name in _INPUT_AND_OUTPUT)
        cpu -= sum(meter.cpu_seconds.get(name, 0.0) for name in _INPUT_AND_OUTPUT)
        if turn == "cold":
            figures |= {
                "cold_work_seconds": work,
                "after_reading_mib": meter.after_reading_kib / _MEBIBYTE,
                "work_peak_mib": (meter.peak_kib - meter.after_reading_kib) / _MEBIBYTE,
            }
        else:
            line = recipe.read_record(PlannedCase("synthetic", 0, (kind,)))["cases"][0]["lesions"][0]
            figures |= {
                "read_seconds": meter.seconds["read_case"] + meter.seconds.get("file_hash", 0.0),
                "place_seconds": meter.seconds["place_lesion"],
                "paint_seconds": 2 * meter.seconds["paint_together"] - sum(meter.seconds.values()),  # all lies in it
                "work_seconds": work,
                "work_cpu_seconds": cpu,
                "write_seconds": meter.seconds["write_case"],
                "diameter_mm": line["diameter_mm"],
            }
    return figures


def memory_kib(key: str) -> int:
    """Return a line of this process's status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    typer.run(main)
