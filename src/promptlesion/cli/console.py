"""What the command line says, on one console."""

import os
from pathlib import Path

from rich.console import Console, RenderableType

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


def say_finished(out: Path, seconds: float) -> None:
    """Say that a run is finished."""
    say(f"{out} is finished ({seconds:.0f} s of work); run again, there is nothing to do.")


def is_main_process() -> bool:
    """Whether this process speaks, of those torchrun started; asked without loading torch."""
    return os.environ.get("RANK", "0") == "0"
