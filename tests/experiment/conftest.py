"""A tiny experiment: two of the tiny dataset's four subjects train, one validates, one is held out."""

from pathlib import Path

import pytest

from promptlesion.config import Config
from promptlesion.data.dataset import Dataset
from promptlesion.experiment.experiment import Experiment


@pytest.fixture
def tiny_experiment(tiny_data: Dataset, any_hu: Path, tiny_config: Config, tmp_path: Path) -> Experiment:
    return Experiment(tiny_data.root, any_hu, tmp_path / "out", tiny_config, 0, "cpu")
