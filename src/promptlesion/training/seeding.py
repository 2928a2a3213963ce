"""Random generators derived from what is drawn, never from how often something was drawn before.

A generator made from (seed, "autoencoder", step) gives the same numbers whatever the batch size, the number
of workers, or whether the run was interrupted in between.
"""

import hashlib

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """Return a 63-bit seed that depends on every part of the key and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator for the key; draw there and move, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(derive_seed(*key))


def numpy_generator(*key: int | str) -> np.random.Generator:
    """Return a NumPy generator for the key."""
    return np.random.default_rng(derive_seed(*key))
