"""The bar never writes to standard output and never hides an error."""

import pytest

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
