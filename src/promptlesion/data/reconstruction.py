"""A scan that has been through an autoencoder."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from promptlesion.data.cache import CachedCase


@dataclass(frozen=True)
class Reconstruction:
    """A scan as the networks see it, and as the autoencoder gives it back."""

    case: CachedCase
    original_hu: Float32[np.ndarray, "x y z"]
    """Clipped to the window."""
    reconstruction_hu: Float32[np.ndarray, "x y z"]
    code_counts: Int64[np.ndarray, " code"]
    """How many tokens of the scan have each code."""
