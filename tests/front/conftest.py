"""A hardly trained model behind the front door: every lesion it paints is kept."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from promptlesion.config import Config
    from promptlesion.front.model import Model


@pytest.fixture(scope="session")
def keep_all() -> "Config":
    from promptlesion.config import resolve_config

    return resolve_config(preset="default", settings=["synthesis.accept_all=true", "synthesis.num_steps=2"])


@pytest.fixture(scope="session")
def model(tiny_diffusion_run: Path, keep_all: "Config") -> "Model":
    from promptlesion.front.model import load_model

    return load_model(tiny_diffusion_run, config=keep_all, device="cpu")
