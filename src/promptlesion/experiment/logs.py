"""What stands in an experiment's folder of a piece of work beside its results: its log, its last failure, its lock."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from promptlesion.experiment.cells import Cell
from promptlesion.training.atomic import write_text
from promptlesion.training.locks import LOCKS_FOLDER

_LOGS_FOLDER = "logs"


def log_path(out: Path, cell: Cell) -> Path:
    """Return the file of all that a piece of work said."""
    return out / _LOGS_FOLDER / f"{_flat(cell)}.log"


def lock_path(out: Path, cell: Cell) -> Path:
    """Return the lock that whoever does a piece of work holds."""
    return out / LOCKS_FOLDER / f"{_flat(cell)}.lock"


def _flat(cell: Cell) -> str:
    return cell.name.replace("/", "-")


def _failure_path(out: Path, cell: Cell) -> Path:
    return log_path(out, cell).with_suffix(".error")


def tell_failure(out: Path, cell: Cell, error: BaseException) -> None:
    """Write down why a piece of work failed."""
    write_text(_failure_path(out, cell), f"{type(error).__name__}: {error}")


def read_failures(out: Path, cells: Sequence[Cell]) -> dict[str, str]:
    """Return why pieces of work failed when they were last tried, by name; those done or at work since are left out."""
    paths = {cell.name: _failure_path(out, cell) for cell in cells if not cell.is_done(out)}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}


@contextmanager
def failure_told(out: Path, cell: Cell) -> Iterator[None]:
    """Forget the last failure of a piece of work, and write down the next."""
    _failure_path(out, cell).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        tell_failure(out, cell, error)
        raise


@contextmanager
def logged(out: Path, cell: Cell) -> Iterator[None]:
    """Let all that this process says from now on, libraries and a traceback among it, go to the log."""
    path = log_path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        logging.getLogger("promptlesion").setLevel(logging.INFO)
        try:
            yield
        except Exception:
            traceback.print_exc()
            raise
