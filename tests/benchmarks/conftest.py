"""The benchmarks' own modules, and a real and a synthetic dataset as evaluation is tested with."""

import sys
from pathlib import Path

from tests.evaluation.conftest import datasets, make_ball

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

__all__ = ["datasets", "make_ball"]
