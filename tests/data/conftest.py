"""Small dataset folders for the tests of promptlesion.data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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

LABELS = {"background": 0, "lumen": 1, "wall": 2, "calcified_plaque": 3, "non_calcified_plaque": 4}


@pytest.fixture
def spec() -> DatasetSpec:
    return DatasetSpec(
        window_hu=(-200.0, 1300.0),
        spacing_mm=(1.0, 1.5, 2.0),
        lesions=(
            LesionType(name="calcified_plaque", label=3, host=("wall",), diameter_mm=(1.5, 6.0), hu=(130.0, 1300.0)),
            LesionType(
                name="non_calcified_plaque",
                label=4,
                host=("wall",),
                diameter_mm=(1.5, 8.0),
                hu=(-50.0, 130.0),
            ),
        ),
    )


def small_case(seed: int) -> tuple[Volume, Volume]:
    """Noise with a wall and one calcified lesion, and a soft one in every second case; sides 13, 17, 11."""
    generator = np.random.default_rng(seed)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    affine[:3, 3] = generator.integers(-50, 50, 3)
    labels = np.zeros((13, 17, 11), dtype=np.uint8)
    labels[4:9, 3:12, 2:8] = 2
    x, y, z = generator.integers((4, 3, 2), (6, 9, 6))
    labels[x : x + 2, y : y + 3, z : z + 2] = 3
    if seed % 2 == 0:
        labels[0:2, 0:2, 0:2] = 4
    image = generator.integers(-1000, 1200, labels.shape).astype(np.int16)
    return Volume(array=image, affine=affine), Volume(array=labels, affine=affine)


@pytest.fixture
def make_dataset(tmp_path: Path, spec: DatasetSpec) -> Callable[[int], Dataset]:
    def make(num_cases: int) -> Dataset:
        root = tmp_path / "data"
        for index in range(num_cases):
            write_case(root, f"case_{index:03d}", *small_case(index))
        write_dataset_json(root, labels=LABELS, num_training=num_cases, extra={})
        write_spec(spec, root / "lesions.toml")
        return open_dataset(root)

    return make
