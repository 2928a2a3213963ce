"""Sizes as readers want them."""

from promptlesion.cost.estimate import gib


def test_sizes_in_words() -> None:
    assert (gib(1), gib(300 * 2**20), gib(1.26 * 2**30)) == ("1 MiB", "300 MiB", "1.3 GiB")
