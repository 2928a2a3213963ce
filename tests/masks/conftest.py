"""The scans of every orientation that synthesis paints into."""

from tests.synthesis.conftest import scans

__all__ = ["scans"]
