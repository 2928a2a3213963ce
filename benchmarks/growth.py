"""How do time, memory and calls grow with scans, cases, lesions, codes and workers? Nothing is trained for it.

    python benchmarks/growth.py --out runs/bench
    python benchmarks/growth.py --only cases --cases 10 --cases 100 --out /tmp/growth

Everything is made up and light, so that what is measured is what grows and not the networks. Seconds are those of one
thread of the processor; memory is what NumPy and Python took at most beyond what was there before, for the codebook
what the process did; calls are those of Python functions, which no other process disturbs. The exponent p of size^p is
that between the two largest sizes: 1 grows as the work does. Writes growth.json, growth.md and growth.png.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from timing.growing import Point


def main(
    out: Annotated[Path, typer.Option("--out", help="Folder for tables.", file_okay=False)] = Path("runs/bench"),
    only: Annotated[list[str] | None, typer.Option("--only", help="An axis; repeatable.")] = None,
    cases: Annotated[list[int] | None, typer.Option("--cases", help="By default 10, 100, 1000; repeatable.")] = None,
    edges: Annotated[list[int] | None, typer.Option("--edge", help="Of scans; 96, 144, 216, 324; repeatable.")] = None,
    lesions: Annotated[list[int] | None, typer.Option("--lesions", help="In a scan; 2, 8, 32; repeatable.")] = None,
    codes: Annotated[list[int] | None, typer.Option("--codes", help="1024 to 65536; repeatable.")] = None,
    workers: Annotated[list[int] | None, typer.Option("--workers", help="1, 2; repeatable.")] = None,
) -> None:
    """Measure, and write tables and picture."""
    import torch
    from timing import growing

    from promptlesion.training.atomic import write_json, write_text
    from promptlesion.training.progress import progress_bar

    torch.set_num_threads(1)
    axes: dict[str, tuple[Callable[[int, Path], list["Point"]], Sequence[int]]] = {
        "cases": (growing.of_cases, cases or (10, 100, 1000)),
        "scan edge, voxels": (growing.of_scans, edges or (96, 144, 216, 324)),
        "lesions in a scan": (growing.of_lesions, lesions or (2, 8, 32)),
        "codes": (growing.of_codes, codes or (1024, 4096, 16384, 65536)),
        "workers": (growing.of_workers, workers or (1, 2)),
    }
    chosen = {name: axis for name, axis in axes.items() if not only or name in only}
    if not chosen:
        raise SystemExit(f"--only: expected one of {', '.join(axes)}; found {', '.join(only or ())}")
    points: list["Point"] = []
    with progress_bar("growth", sum(len(sizes) for _, sizes in chosen.values())) as bar:
        for measure, sizes in chosen.values():
            for size in sizes:
                with tempfile.TemporaryDirectory() as folder:
                    points += measure(size, Path(folder))
                bar.update(len({(point.axis, point.size) for point in points}))
    write_json(out / "growth.json", {"command": " ".join(["python", *sys.argv]), "points": [asdict(p) for p in points]})
    lines = ["# Growth", "", f"    {' '.join(['python', *sys.argv])}", "", *table(points), ""]
    write_text(out / "growth.md", "\n".join(lines))
    draw(points, out / "growth.png")
    typer.echo("\n".join(lines))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """Return p of size^p between the two largest sizes; None where nothing was taken, or one size measured."""
    if len(sizes) < 2 or min(values[-2:]) <= 0:
        return None
    return log(values[-1] / values[-2]) / log(sizes[-1] / sizes[-2])


def table(points: Sequence["Point"]) -> list[str]:
    """Return a line for every piece of work: its figures by size, and their exponents."""
    lines = ["| axis | work | sizes | seconds | p | MiB | p | calls | p |", "|" + "---|" * 9]
    for axis, work in dict.fromkeys((point.axis, point.work) for point in points):
        own = [point for point in points if (point.axis, point.work) == (axis, work)]
        sizes = [point.size for point in own]
        cells = [axis, work, ", ".join(map(str, sizes))]
        for name, form in (("seconds", ".3g"), ("mib", ".3g"), ("calls", "d")):
            taken = {point.size: value for point in own if (value := getattr(point, name)) is not None}
            slope = exponent(list(taken), list(taken.values()))
            shown = ", ".join(f"{taken[size]:{form}}" if size in taken else "-" for size in sizes)
            cells += [shown if taken else "-", "-" if slope is None else f"{slope:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(points: Sequence["Point"], path: Path) -> None:
    """Draw seconds against size, a panel for every axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    from promptlesion.evaluation.figures import save_figure

    axes = list(dict.fromkeys(point.axis for point in points))
    figure = Figure(figsize=(3.4 * len(axes), 5.0), layout="constrained")
    for index, axis in enumerate(axes, start=1):
        panel = figure.add_subplot(1, len(axes), index)
        for work in dict.fromkeys(point.work for point in points if point.axis == axis):
            own = [point for point in points if (point.axis, point.work) == (axis, work)]
            panel.loglog([p.size for p in own], [max(p.seconds, 1e-6) for p in own], marker="o", label=work)
        panel.set_xlabel(axis)
        panel.set_ylabel("seconds")
        sizes = sorted({point.size for point in points if point.axis == axis})
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    save_figure(figure, path)


if __name__ == "__main__":
    typer.run(main)
