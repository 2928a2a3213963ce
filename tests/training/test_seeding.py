"""Seeds depend on every part of their key, on its order and on its type."""

import numpy as np
import torch

from promptlesion.training.seeding import derive_seed, numpy_generator, torch_generator


def test_every_difference_in_the_key_gives_another_seed() -> None:
    keys: list[tuple[int | str, ...]] = [
        (1, "a", 2),
        (2, "a", 1),
        ("a", 1, 2),
        ("1", "a", 2),
        (1, "a"),
        (1, "a2"),
        (12, "a"),
        (1, "a", "2"),
    ]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_seed_is_stable_across_processes_and_fits_every_generator() -> None:
    seeds = [derive_seed("autoencoder", step) for step in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "autoencoder", 7) == derive_seed(0, "autoencoder", 7)
    # a golden number on purpose: a change of the derivation would silently change every run
    assert derive_seed(0, "autoencoder", 7) == 1706324195908336577


def test_generators_of_one_key_agree_and_of_two_keys_differ() -> None:
    def torch_draw(*key: int | str) -> torch.Tensor:
        return torch.rand(8, generator=torch_generator(*key))

    def numpy_draw(*key: int | str) -> np.ndarray:
        return numpy_generator(*key).random(8)

    assert torch.equal(torch_draw(3, "x"), torch_draw(3, "x"))
    assert not torch.equal(torch_draw(3, "x"), torch_draw(3, "y"))
    assert np.array_equal(numpy_draw(3, "x"), numpy_draw(3, "x"))
    assert not np.array_equal(numpy_draw(3, "x"), numpy_draw(4, "x"))


def test_drawing_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(8, generator=torch_generator(3, "x"))
    assert torch.equal(before, torch.get_rng_state())
