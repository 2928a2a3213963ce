"""Lesion crops, and a small dataset folder with its synthetic counterpart."""

import json
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
from promptlesion.evaluation.lesions import LesionCrop

SPACING_MM = (0.8, 1.0, 1.5)
LABELS = {"background": 0, "lumen": 1, "wall": 2, "hard_plaque": 3, "soft_plaque": 4}
HOST_HU, LESION_HU = 50.0, 600.0


def _radius_mm(shape: tuple[int, int, int], center: tuple[int, int, int]) -> np.ndarray:
    grids = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    offsets = [(grid - at) * mm for grid, at, mm in zip(grids, center, SPACING_MM, strict=True)]
    return np.asarray(np.sqrt(sum(offset**2 for offset in offsets)))


@pytest.fixture(scope="session")
def make_ball() -> Callable[[int], LesionCrop]:
    """A maker of bright balls in noise, one per seed, of varying size and brightness."""

    def make(seed: int) -> LesionCrop:
        generator = np.random.default_rng(seed)
        shape = (40, 36, 30)
        mask = _radius_mm(shape, (20, 18, 15)) < generator.uniform(4, 6)
        hu = np.where(mask, LESION_HU + generator.normal(0, 40), HOST_HU) + generator.normal(0, 20, shape)
        return LesionCrop(
            case=f"ball_{seed}",
            subject=f"ball_{seed}",
            lesion_type="hard_plaque",
            hu=hu.astype(np.float32),
            mask=mask,
            start_voxel=(0, 0, 0),
            spacing_mm=SPACING_MM,
        )

    return make


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """A source dataset with one hard lesion a case, and a synthetic one with a new hard and soft one."""
    root = tmp_path_factory.mktemp("evaluation")
    spec = DatasetSpec(
        window_hu=(-200, 1300),
        spacing_mm=SPACING_MM,
        lesions=(
            LesionType(name="hard_plaque", label=3, host=("wall",), diameter_mm=(1, 9), hu=(130, 1300)),
            LesionType(name="soft_plaque", label=4, host=("wall",), diameter_mm=(1, 9), hu=(-50, 130)),
        ),
    )
    shape = (50, 44, 20)
    affine = np.diag([*SPACING_MM, 1.0])
    lines = []
    for index in range(3):
        noise = np.random.default_rng(index).normal(0, 10, shape)
        hu, labels = np.full(shape, -80.0), np.zeros(shape, dtype=np.uint8)
        tube = _radius_mm(shape, (24, 22, 10)) < 16
        hu[tube], labels[tube] = HOST_HU, 2
        old = _radius_mm(shape, (15, 22, 10)) < 3
        hu[old], labels[old] = LESION_HU, 3
        write_case(root / "real", f"case_{index}", *_volumes(hu + noise, labels, affine))
        new_labels, new_hu = labels.copy(), hu.copy()
        for center, label, brightness in (((24, 26, 10), 3, 700), ((33, 18, 9), 4, 20)):
            ball = _radius_mm(shape, center) < 3.5
            new_labels[ball], new_hu[ball] = label, brightness
        write_case(root / "synthetic", f"synthetic_{index}", *_volumes(new_hu + noise, new_labels, affine))
        lines.append({"case": f"synthetic_{index}", "source": f"case_{index}", "subject": f"case_{index}"})
    for name in ("real", "synthetic"):
        write_dataset_json(root / name, labels=LABELS, num_training=3, extra={})
        write_spec(spec, root / name / "lesions.toml")
    provenance = "".join(json.dumps(line) + "\n" for line in lines)
    Path(root / "synthetic" / "provenance.jsonl").write_text(provenance)
    return open_dataset(root / "real"), open_dataset(root / "synthetic")


def _volumes(hu: np.ndarray, labels: np.ndarray, affine: np.ndarray) -> tuple[Volume, Volume]:
    return Volume(hu.round().astype(np.int16), affine), Volume(labels, affine)
