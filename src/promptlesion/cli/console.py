"""What the command line says, on one console."""

import os
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType

if TYPE_CHECKING:
    from promptlesion.training.run import Run

console = Console(markup=False, emoji=False)  # a path may hold brackets, a name colons


def say(text: str) -> None:
    """Print a line."""
    console.print(text, highlight=False, soft_wrap=True)


def show(*parts: RenderableType) -> None:
    """Print lines and tables."""
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            console.print(part)


def say_finished(run: "Run", otherwise: str = "") -> None:
    """Say that a run is finished, or what else holds; of the processes torchrun started, one speaks."""
    if os.environ.get("RANK", "0") != "0":
        return
    if run.is_finished:
        say(f"{run.folder} is finished ({run.seconds:.0f} s of work); run again, there is nothing to do.")
    elif otherwise:
        say(f"{run.folder}: {otherwise}")
