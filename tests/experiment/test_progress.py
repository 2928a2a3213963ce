"""The live table: what is done, what is left, and how long that takes."""

import io
import time

import pytest
from rich.console import Console

from promptlesion.experiment.cells import Design, plan_cells
from promptlesion.experiment.progress import Progress, shown

CELLS = plan_cells(Design(methods=("real", "copy-paste"), seeds=(0, 1), ratios=(1.0,), num_subjects=(8,)))


def drawn(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(progress.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_time_left_is_corrected_by_what_is_done() -> None:
    progress = Progress(CELLS, estimates={cell.name: 10.0 for cell in CELLS}, num_workers=2)
    assert progress.seconds_left() == 10.0 * len(CELLS) / 2
    progress.states[CELLS[0].name], progress.seconds[CELLS[0].name] = "done", 30.0  # three times as long as was thought
    assert progress.seconds_left() == 3 * 10.0 * (len(CELLS) - 1) / 2
    assert Progress(CELLS).seconds_left() is None


def test_the_table_shows_every_state() -> None:
    progress = Progress(CELLS)
    progress.states |= {cell.name: "done" for cell in CELLS if cell.kind == "method"}
    progress.states["8-subjects/segmentation/real/seed-0"] = "step 40"
    progress.states["8-subjects/synthetic/copy-paste/ratio-1/seed-0"] = "failed"
    progress.states["8-subjects/segmentation/copy-paste/ratio-1/seed-0"] = "skipped"
    text = drawn(progress)
    assert f"1 of {len(CELLS)} done" in text
    real, pasted = (line for line in text.splitlines() if line.split()[:1] == ["8"])
    assert "step 40" in real and "waiting" in real
    assert "painting: failed" in pasted and "done" in pasted


def test_where_nobody_watches_a_change_is_a_line() -> None:
    console = Console(file=io.StringIO())
    progress = Progress(CELLS)
    with shown(progress, console) as draw:
        draw()
        progress.states[CELLS[0].name] = "begins"
        draw()
        draw()
        progress.states[CELLS[0].name], progress.seconds[CELLS[0].name] = "done", 75.0
        draw()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        f"[0/{len(CELLS)}] 8-subjects/copy-paste: begins",
        f"[1/{len(CELLS)}] 8-subjects/copy-paste: done in 1 min 15 s",
    ]


def test_where_nobody_watches_a_line_a_minute_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO())
    progress = Progress(CELLS, estimates={cell.name: 60.0 for cell in CELLS})
    with shown(progress, console) as draw:
        for seconds, state in ((0, "begins"), (30, "step 20"), (61, "step 70"), (100, "step 90")):
            now[0], progress.states[CELLS[0].name] = float(seconds), state
            draw()
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    name, left = f"[0/{len(CELLS)}] 8-subjects/copy-paste", f"about {len(CELLS)} min 00 s left"
    assert lines == [f"{name}: begins", f"{name}: step 70; {left}"]
