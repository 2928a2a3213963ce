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
    from promptlesion.data.dataset import open_dataset
    from promptlesion.segmentation.predict import chosen_cases, segment_dataset
    from promptlesion.training.progress import progress_bar

    dataset = chosen_cases(model, open_dataset(data, lesions), is_unseen_only=part == "test")
    with progress_bar("segmenting", len(dataset.cases)) as bar:
        segment_dataset(
            model, dataset, out, device=device, is_mirrored=mirror, on_progress=lambda done, _: bar.update(done)
        )
    say(f"{len(dataset.cases)} label maps in {out}")
