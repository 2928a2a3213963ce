"""Progress never writes to standard output, never hides an error, and can be read in a log."""

import pytest

from promptlesion.training import progress
from promptlesion.training.progress import progress_bar, progress_reports


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("encoding", 3, done=1) as bar:
        bar.update(2)
        bar.update(3, {"loss": 0.25, "l1": 1e-5, "a": 1.0, "b": 2.0})
    assert capsys.readouterr().out == ""


def test_an_error_passes_through() -> None:
    with pytest.raises(RuntimeError, match="inside"), progress_bar("encoding", 3):
        raise RuntimeError("inside")


def test_a_bar_whose_total_shows_later_appears_with_its_first_report(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_reports("looking"):
        pass
    assert capsys.readouterr().err == ""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_at_the_start_and_one_every_tenth(capsys: pytest.CaptureFixture[str], at: list[float]) -> None:
    with progress_bar("training", 200) as bar:
        assert capsys.readouterr().err == "training: begins, 200 to do\n"
        for step in range(1, 201):
            at[0] = float(step)
            bar.update(step, {"loss": 1 / step})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 20 of 200 (10%), 0:00:20 so far, about 0:03:00 left  loss 0.05"
    assert [line.split()[1] for line in lines] == [str(done) for done in range(20, 201, 20)]
    assert lines[-1] == "training: 200 of 200 (100%), 0:03:20 so far  loss 0.005"


def test_a_log_has_a_line_every_minute_of_slow_work_and_where_it_ended(
    capsys: pytest.CaptureFixture[str], at: list[float]
) -> None:
    with progress_bar("training", 1000, done=500) as bar:
        for step in range(501, 511):
            at[0] += 25.0
            bar.update(step)
    assert capsys.readouterr().err.splitlines() == [
        "training: goes on at 500 of 1000",
        "training: 503 of 1000 (50%), 0:01:15 so far, about 3:27:05 left",
        "training: 506 of 1000 (51%), 0:02:30 so far, about 3:25:50 left",
        "training: 509 of 1000 (51%), 0:03:45 so far, about 3:24:35 left",
        "training: 510 of 1000 (51%), 0:04:10 so far, about 3:24:10 left",
    ]


def test_what_is_done_in_a_moment_takes_two_lines_of_a_log(capsys: pytest.CaptureFixture[str], at: list[float]) -> None:
    with progress_bar("preparing", 50) as bar:
        for done in range(1, 51):
            at[0] += 0.005
            bar.update(done)
    assert capsys.readouterr().err.splitlines() == [
        "preparing: begins, 50 to do",
        "preparing: 50 of 50 (100%), 0:00:00 so far",
    ]


def test_other_processes_than_the_main_one_are_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with progress_bar("training", 2) as bar:
        bar.update(1)
    assert capsys.readouterr().err == ""
