"""Two calls at once that write or cache the same dataset: nobody fails, and the files are those of one."""

from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from promptlesion.data.cache import build_cache
from promptlesion.data.dataset import Dataset
from promptlesion.data.phantom import write_phantom_dataset
from promptlesion.data.sources import open_source, write_source


def draw(out: Path) -> None:
    """Write two phantoms, the small ones of that kind."""
    write_phantom_dataset("five", num_cases=2, seed=5, out=out)


def convert(out: Path, *, root: Path) -> None:
    """Write a dataset folder from another one."""
    write_source(open_source(root), out)


def prepare(out: Path, *, dataset: Dataset) -> None:
    """Cache a dataset."""
    build_cache(dataset, out)


@pytest.mark.parametrize("num_rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", [draw, convert, prepare])
def test_two_at_once_write_what_one_writes(
    start_processes: Callable[..., list[ForkServerProcess]],
    tiny_data: Dataset,
    tmp_path: Path,
    what: Callable[..., None],
    num_rounds: int,
) -> None:
    work = {
        draw: what,
        convert: partial(what, root=tiny_data.root),
        prepare: partial(what, dataset=tiny_data),
    }[what]

    def contents(out: Path) -> dict[str, bytes]:
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    work(tmp_path / "one")
    for number in range(num_rounds):
        out = tmp_path / f"two_{number}"
        for process in [start_processes(partial(work, out), num_processes=1)[0] for _ in range(2)]:
            process.join()
            assert process.exitcode == 0
        assert contents(out) == contents(tmp_path / "one")
