"""Tiny runs of both baselines, and a scan with two lesions placed in it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.trained import trained

from promptlesion.baselines.config import DiffTumorConfig, MedDDPMConfig
from promptlesion.baselines.difftumor import train_difftumor
from promptlesion.baselines.med_ddpm import train_med_ddpm
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset, read_case
from promptlesion.data.lesion_statistics import LesionStatistics
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion, place_lesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.config import SynthesisConfig


@pytest.fixture(scope="session")
def sampling() -> SynthesisConfig:
    """Settings that suit every method."""
    options = {"lesions_per_case": 2, "accept_all": True, "keep_noise": False}
    return SynthesisConfig(sampler="ddim", num_steps=3, init="noise", **options)


@pytest.fixture(scope="session")
def tiny_difftumor_config() -> DiffTumorConfig:
    return DiffTumorConfig(
        patch_voxels=16,
        num_levels=20,
        rescale_betas=True,
        prediction="v",
        channels=(8, 8),
        blocks_per_level=1,
        attention_levels=(1,),
        attention_head_channels=8,
        patches_per_lesion=2,
        num_steps=12,
        batch_size=2,
        learning_rate=1e-3,
        precision="float32",
        checkpoint_every_steps=3,
    )


@pytest.fixture(scope="session")
def difftumor(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_difftumor_config: DiffTumorConfig,
) -> partial[object]:
    return partial(
        trained,
        train_difftumor,
        train_cases=tiny_cases[:3],
        spec=tiny_spec,
        labels=tiny_labels,
        autoencoder_run=tiny_autoencoder_run,
        config=tiny_difftumor_config,
        seed=7,
        device="cpu",
    )


@pytest.fixture(scope="session")
def difftumor_run(difftumor: partial[object], tiny_autoencoder_run: Path) -> Path:
    """A finished run of both lesion types, trained without a break."""
    out = tiny_autoencoder_run.parent / "difftumor"
    difftumor(out=out)
    return out


@pytest.fixture(scope="session")
def tiny_med_ddpm_config() -> MedDDPMConfig:
    return MedDDPMConfig(
        patch_voxels=16,
        num_levels=20,
        channels=(8, 16),
        blocks_per_level=1,
        attention_levels=(1,),
        attention_head_channels=8,
        num_steps=30,
        batch_size=2,
        learning_rate=1e-3,
        learning_rate_decay="cosine",
        precision="float32",
        checkpoint_every_steps=3,
    )


@pytest.fixture(scope="session")
def med_ddpm(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_med_ddpm_config: MedDDPMConfig,
) -> partial[object]:
    return partial(
        trained,
        train_med_ddpm,
        train_cases=tiny_cases[:3],
        spec=tiny_spec,
        labels=tiny_labels,
        config=tiny_med_ddpm_config,
        seed=7,
        device="cpu",
    )


@pytest.fixture(scope="session")
def med_ddpm_run(med_ddpm: partial[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained without a break."""
    out = tmp_path_factory.mktemp("runs") / "med-ddpm"
    med_ddpm(out=out)
    return out


@pytest.fixture(scope="session")
def lenient(tiny_data: Dataset) -> Dataset:
    """The tiny dataset; small lesions of any brightness are plausible, as the models are hardly trained."""
    lesions = tuple(
        lesion.model_copy(update={"hu": (-1000.0, 3000.0), "diameter_mm": (3.0, 6.0)})
        for lesion in tiny_data.spec.lesions
    )
    return replace(tiny_data, spec=tiny_data.spec.model_copy(update={"lesions": lesions}))


@pytest.fixture(scope="session")
def scene(lenient: Dataset) -> tuple[Volume, list[PlacedLesion]]:
    """A scan and a lesion of either type placed in it."""
    image, labels = read_case(lenient, lenient.cases[3])
    lesions: list[PlacedLesion] = []
    for index in range(2):
        lesion = place_lesion(
            labels,
            lenient,
            index,
            drawing=LesionDrawing(LesionStatistics(types={}), deformation=0.2),
            generator=np.random.default_rng(index),
            edge_mm=1.5,
            max_extent_mm=12.0,
            image=image,
            others=lesions,
        )
        lesions.append(lesion)
    return image, lesions
