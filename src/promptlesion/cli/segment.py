"""The verb that segments."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from promptlesion.cli.console import say
from promptlesion.cli.options import Data, Device, Lesions, Out, Part, folder

app = Typer()
_PART = "test: only subjects that the network was neither trained nor selected on."
_MIRROR = "Mean over the mirror images of every window: eight times the work."


@app.command()
def segment(
    model: Annotated[Path, folder("Finished segmentation run.")],
    data: Data,
    out: Out,
    part: Annotated[Part, Option(help=_PART)] = "all",
    mirror: Annotated[bool, Option("--mirror", help=_MIRROR)] = False,
    lesions: Lesions = None,
    device: Device = "auto",
) -> None:
    """Write a label map for every scan of a dataset folder, on the scan's own grid.

    [bold]Examples[/bold]

    promptlesion segment --model runs/mine/mixed --data data/new --out runs/mine/new

    promptlesion segment --model runs/mine/mixed --data data/ccta --part test --out runs/mine/predictions
    """
    from promptlesion.front import verbs

    cases = verbs.segment(model, data, out, part=part, mirror=mirror, lesions=lesions, device=device)
    say(f"{len(cases)} label maps in {out}")
