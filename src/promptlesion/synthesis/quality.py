"""Is what was painted plausible for its type?"""

import numpy as np
from jaxtyping import Bool, Shaped

from promptlesion.data.spec import LesionType


def mean_hu_inside(hu: Shaped[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> float:
    """Return the mean HU of the masked voxels."""
    return float(hu[mask].mean(dtype=np.float64))


def is_plausible(mean_hu: float, lesion_type: LesionType) -> bool:
    """Return whether a lesion's mean lies in the range that `lesions.toml` states for its type."""
    low, high = lesion_type.hu
    return low <= mean_hu <= high
