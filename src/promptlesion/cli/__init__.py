"""The command line: verbs in pipeline order, one file a group. Parses, resolves the configuration, calls one function.

Nothing that imports torch is imported before a verb needs it: `promptlesion --help` answers at once.
"""

import logging
import os
import sys
from typing import Annotated

from rich.console import Console
from rich.logging import RichHandler
from typer import Exit, Option, Typer

from promptlesion import __version__
from promptlesion.cli import configuration, dataset, evaluate, experiment, segment, synthesize, train
from promptlesion.cli.console import say
from promptlesion.training.stopping import end_as_interrupted

BAD_INPUT, UNFINISHED = 2, 1
_INTERRUPTED = 130  # typer's answer to Ctrl+C

app = Typer(
    name="promptlesion",
    help="Paint lesions of an asked-for type into healthy CT scans, and train segmentation on the lot.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
_GROUPS = (experiment.demo_app, dataset.app, train.app, synthesize.app, segment.app, evaluate.app, experiment.app)
for verbs in (*_GROUPS, configuration.app):
    app.add_typer(verbs)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        say(__version__)
        raise Exit


def main() -> None:
    """Run the command line: exit 0 when it ended well, 2 for bad input, 1 for work that could not be finished."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    logging.getLogger("promptlesion").setLevel(logging.INFO)
    end_as_interrupted()
    try:
        app()
    except ValueError as error:
        _fail(str(error), BAD_INPUT)
    except (OSError, RuntimeError) as error:
        _fail(f"{type(error).__name__}: {error}", UNFINISHED)
    except MemoryError as error:
        _fail(f"Out of memory. {error}\nWhat is finished stays; the same command goes on from there.", UNFINISHED)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:
            _fail("Interrupted. The same command goes on where it stopped.", UNFINISHED)
        raise


def _fail(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")  # of several processes, any may be the one that fails
    sys.stderr.write(("" if rank == "0" else f"process {rank}: ") + message.rstrip() + "\n")
    sys.exit(code)
