"""Lesion crops, a small dataset folder with its synthetic counterpart, and made-up results."""

import json
from collections.abc import Callable, Sequence
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
from promptlesion.evaluation.lesion_intensity import intensity_rows, prompt_switch
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.results import (
    CaseScoreRow,
    DatasetSummary,
    DemoResults,
    Estimate,
    FalsePositiveRow,
    FidelityRow,
    SegmentationRow,
    StageTime,
)

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


def _scores(trained_on: str, dice: Sequence[float]) -> tuple[CaseScoreRow, ...]:
    return tuple(
        CaseScoreRow(
            trained_on=trained_on,
            case=f"case_{index}",
            subject=f"subject_{index}",
            lesion_type=lesion_type,
            dice=value,
            surface_dice=min(value + 0.1, 1.0),
            hd95_mm=None if value == 0 else 3.2,
            num_truth_voxels=120,
            num_predicted_voxels=100,
        )
        for lesion_type in ("hard_plaque", "soft_plaque")
        for index, value in enumerate(dice)
    )


@pytest.fixture(scope="session")
def results() -> DemoResults:
    """Made-up results of a small run with two lesion types."""
    names = ("hard_plaque", "soft_plaque")
    switch = prompt_switch(
        "one-hot",
        {"hard_plaque": np.array([560.0, 640.0, 610.0]), "soft_plaque": np.array([70.0, 95.0, 60.0])},
        {"hard_plaque": 640.0, "soft_plaque": 55.0},
    )
    improved = Estimate(value=0.08, low=0.02, high=0.15)
    return DemoResults(
        command="promptlesion demo --out runs/demo",
        created="2025-01-01T12:00:00Z",
        seed=0,
        machine="2 cores, CPU <test>",
        versions={"promptlesion": "0.1.0", "torch": "2.13.0"},
        dataset=DatasetSummary(
            name="ccta phantom",
            path="runs/demo/data",
            is_phantom=True,
            lesion_types=names,
            spacing_mm=SPACING_MM,
            window_hu=(-200, 1300),
            num_train_cases=14,
            num_validation_cases=3,
            num_test_cases=4,
            num_train_subjects=14,
            num_validation_subjects=3,
            num_test_subjects=4,
            num_synthetic_cases=14,
        ),
        segmentation=tuple(
            SegmentationRow(
                lesion_type=name,
                metric=metric,
                num_subjects=4,
                num_cases=4,
                real=Estimate(value=0.5, low=0.4, high=0.6),
                mixed=Estimate(value=0.58, low=0.47, high=0.66),
                difference=improved if name == "hard_plaque" else Estimate(value=0.01, low=-0.05, high=0.06),
            )
            for name in names
            for metric in ("Dice", "surface Dice (2 mm)")
        ),
        false_positives=(FalsePositiveRow(lesion_type="soft_plaque", num_cases=2, num_real=1, num_mixed=0),),
        case_scores=_scores("real", (0.3, 0.5, 0.7, 0.0)) + _scores("mixed", (0.45, 0.55, 0.72, 0.1)),
        fidelity=tuple(
            FidelityRow(
                lesion_type=name,
                compared="real against synthetic",
                network="EfficientNet-lite0, ImageNet",
                layer="stage 4",
                dimension=112,
                num_real=20,
                num_synthetic=28,
                fid=Estimate(value=1.25, low=0.9, high=1.6),
                kid=Estimate(value=0.00042, low=-0.0001, high=0.0009),
            )
            for name in names
        ),
        intensity=intensity_rows(
            "synthetic",
            {"hard_plaque": np.array([640.0, 620.0]), "soft_plaque": np.array([55.0])},
            {"hard_plaque": np.array([600.0]), "soft_plaque": np.array([95.0])},
        ),
        prompt_switch=(switch,),
        stages=(
            StageTime(stage="autoencoder", seconds=125.0, note="300 steps"),
            StageTime(stage="diffusion", seconds=7.5),
        ),
        configuration={"diffusion": {"num_steps": 400, "prediction": "v"}, "seed": 0},
        limits=("Phantom only.", "Short training."),
    )
