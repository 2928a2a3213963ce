"""Work in several processes: every item once, one thread each, errors come back."""

import os

import pytest

from promptlesion.data.processes import one_thread_each, run_in_processes


def test_processes_haveone_thread_each_unless_the_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with one_thread_each():
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "1")
    assert dict(os.environ) == before


def _half(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_is_done_once_and_errors_come_back(num_workers: int) -> None:
    assert sorted(run_in_processes(_half, [2, 4, 6], num_workers)) == [1, 2, 3]
    assert list(run_in_processes(_half, [], num_workers)) == []
    with pytest.raises(ValueError, match="3 is odd"):
        list(run_in_processes(_half, [2, 3], num_workers))
    with pytest.raises(ValueError, match="at least one worker, found 0"):
        list(run_in_processes(_half, [2], 0))
