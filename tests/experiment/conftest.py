"""A tiny experiment: two of the tiny dataset's four subjects train, one validates, one is held out."""

from pathlib import Path

import pytest

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.config import Config, DataConfig, EvaluationConfig
from promptlesion.data.dataset import Dataset, write_spec
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.experiment.work import Experiment
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.synthesis.config import SynthesisConfig


@pytest.fixture(scope="session")
def config(tiny_autoencoder_config: AutoencoderConfig, tiny_diffusion_config: DiffusionConfig) -> Config:
    return Config(
        data=DataConfig(validation_fraction=0.25, test_fraction=0.25),
        autoencoder=tiny_autoencoder_config,
        diffusion=tiny_diffusion_config,
        synthesis=SynthesisConfig(sampler="ddim", num_steps=2, accept_all=True),
        segmentation=SegmentationConfig(
            patch_voxels=16, channels=(4, 8), residual_units=0, num_epochs=1, steps_per_epoch=2, batch_size=2
        ),
        evaluation=EvaluationConfig(num_resamples=100, feature_margin_voxels=4),
    )


@pytest.fixture(scope="session")
def lesions(tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `lesions.toml` elsewhere, to which any brightness is plausible."""
    spec = tiny_data.spec
    relaxed = [lesion.model_copy(update={"hu": (-1000.0, 3000.0)}) for lesion in spec.lesions]
    path = tmp_path_factory.mktemp("spec") / "lesions.toml"
    write_spec(spec.model_copy(update={"lesions": tuple(relaxed)}), path)
    return path


@pytest.fixture
def tiny_experiment(tiny_data: Dataset, lesions: Path, config: Config, tmp_path: Path) -> Experiment:
    return Experiment(tiny_data.root, lesions, tmp_path / "out", config, 0, "cpu")
