"""The tiny networks that the check is tested with."""

from tests.check.conftest import tiny_config

__all__ = ["tiny_config"]
