"""A small dataset with gaps between its label values, its cache, and a tiny configuration."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.trained import trained

from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import (
    Dataset,
    DatasetSpec,
    LesionType,
    open_dataset,
    write_case,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.volume import Volume
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.run import Run

LABELS = {"background": 0, "wall": 2, "hard_plaque": 5, "soft_plaque": 9}
MEAN_HU = {0: -100.0, 2: 60.0, 5: 700.0, 9: 250.0}
SHAPE = (26, 22, 18)
SPACING_MM = (0.8, 1.0, 1.5)


@pytest.fixture(scope="session")
def label_values_by_name() -> dict[str, int]:
    return dict(LABELS)


@pytest.fixture(scope="session")
def scan_maker() -> Callable[..., tuple[Volume, Volume]]:
    return make_scan


@pytest.fixture(scope="session")
def spec() -> DatasetSpec:
    return DatasetSpec(
        window_hu=(-200.0, 1300.0),
        spacing_mm=SPACING_MM,
        lesions=(
            LesionType(name="hard_plaque", label=5, host=("wall",), diameter_mm=(1, 9), hu=(130, 1300)),
            LesionType(name="soft_plaque", label=9, host=("wall",), diameter_mm=(1, 9), hu=(-50, 400)),
        ),
    )


def make_scan(seed: int, lesion_values: Sequence[int] = (5, 9)) -> tuple[Volume, Volume]:
    """A wall in the background with one cuboid lesion of each value asked for, and noise."""
    generator = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[4:22, 4:18, 4:14] = 2
    for value, low_x in zip(lesion_values, (5, 14), strict=False):
        x, y, z = generator.integers((low_x, 5, 5), (low_x + 3, 11, 9))
        labels[x : x + 5, y : y + 5, z : z + 4] = value
    hu = np.vectorize(MEAN_HU.get)(labels) + generator.normal(0, 15, SHAPE)
    affine = np.diag([*SPACING_MM, 1.0])
    affine[:3, 3] = (-12.0, 7.5, 30.0)
    return Volume(hu.round().astype(np.int16), affine), Volume(labels, affine)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, spec: DatasetSpec) -> Dataset:
    """Six cases with both types, then one with the hard type alone, then one healthy."""
    root = tmp_path_factory.mktemp("segmentation") / "data"
    lesion_values = [(5, 9)] * 6 + [(5,), ()]
    for index, values in enumerate(lesion_values):
        write_case(root, f"case_{index}", *make_scan(index, values))
    write_dataset_json(root, labels=LABELS, num_training=len(lesion_values), extra={})
    write_spec(spec, root / "lesions.toml")
    return open_dataset(root)


@pytest.fixture(scope="session")
def cases(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[CachedCase]:
    return build_cache(dataset, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def config() -> SegmentationConfig:
    return SegmentationConfig(
        patch_voxels=16,
        channels=(4, 8),
        residual_units=1,
        num_epochs=2,
        steps_per_epoch=3,
        batch_size=2,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="session")
def as_they_are() -> dict[str, float]:
    """Settings under which patches are mirrored only: a run of seconds learns the cases by heart."""
    changes = ("rotation", "scaling", "noise", "blur", "brightness", "contrast", "gamma")
    return {f"{change}_probability": 0.0 for change in changes}


@pytest.fixture(scope="session")
def train(spec: DatasetSpec, cases: list[CachedCase]) -> Callable[..., Run]:
    """A maker of runs: cases 0 to 2 train, 3 and 4 validate, unless said otherwise."""
    from promptlesion.segmentation.train import train_segmentation

    def make(out: Path, config: SegmentationConfig, **changes: object) -> Run:
        arguments: dict[str, object] = {
            "real_cases": cases[:3],
            "synthetic_cases": [],
            "validation_cases": cases[3:5],
            "test_cases": [],
            "spec": spec,
            "labels": LABELS,
            "config": config,
            "out": out,
            "seed": 7,
            "device": "cpu",
        }
        return trained(train_segmentation, **{**arguments, **changes})

    return make


@pytest.fixture(scope="session")
def trained_run(
    train: Callable[..., Run],
    config: SegmentationConfig,
    as_they_are: dict[str, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """A run long enough to tell the labels apart."""
    longer = config.model_copy(
        update={
            "channels": (8, 16),
            "num_epochs": 4,
            "steps_per_epoch": 40,
            "batch_size": 4,
            "learning_rate_decay": "cosine",
            **as_they_are,
        }
    )
    return train(tmp_path_factory.mktemp("runs") / "trained", longer)
