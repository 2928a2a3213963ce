"""What is drawn ahead is what would be drawn when due, in order, and no further ahead than asked for."""

import threading

import numpy as np
import pytest
import torch

from promptlesion.training.prefetch import prefetched
from promptlesion.training.seeding import numpy_generator


def draw(step: int) -> np.ndarray:
    return numpy_generator(3, "prefetch", step).random(5)


@pytest.mark.parametrize("num_batches", [0, 1, 2, 7])
@pytest.mark.parametrize("steps", [range(11), range(4, 6), range(3, 3)])
def test_batches_come_in_order_whoever_draws_them(steps: range, num_batches: int) -> None:
    drawn = list(prefetched(draw, steps, num_batches=num_batches))
    assert len(drawn) == len(steps)
    for step, batch in zip(steps, drawn, strict=True):
        assert np.array_equal(batch, draw(step))


def test_no_more_is_drawn_than_may_wait() -> None:
    begun: list[int] = []

    def note(step: int) -> int:
        begun.append(step)
        return step

    batches = prefetched(note, range(100), num_batches=2)
    assert begun == []
    for taken in range(10):
        assert next(batches) == taken
        assert max(begun) <= taken + 2
    batches.close()
    assert len(begun) <= 12


def test_drawing_goes_on_while_a_batch_is_used() -> None:
    later = threading.Event()

    def tell(step: int) -> int:
        if step == 1:
            later.set()
        return step

    batches = prefetched(tell, range(2), num_batches=1)
    assert next(batches) == 0
    assert later.wait(timeout=10)  # nobody has asked for the second yet
    assert list(batches) == [1]


def test_an_error_is_raised_where_its_batch_is_due() -> None:
    def refuse(step: int) -> int:
        if step == 3:
            raise ValueError("no fourth batch")
        return step

    batches = prefetched(refuse, range(9), num_batches=5)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no fourth batch"):
        next(batches)


def test_threads_end_with_the_batches_and_torch_keeps_its_own() -> None:
    before, threads = torch.get_num_threads(), threading.active_count()
    torch.set_num_threads(2)
    try:
        inside = list(prefetched(lambda _: torch.get_num_threads(), range(6), num_batches=3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert inside == [1] * 6  # a team in each thread would take the cores from the network
    assert threading.active_count() == threads
