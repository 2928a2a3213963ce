"""What is measured of training lesions is what they were made with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptlesion.data import lesion_statistics
from promptlesion.data.cache import CachedCase, build_cache
from promptlesion.data.dataset import Dataset, LesionType, open_dataset, write_case, write_dataset_json, write_spec
from promptlesion.data.lesion_statistics import (
    LesionStatistics,
    TypeStatistics,
    measure_lesion,
    measure_lesions,
    read_statistics,
)
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.volume import Volume
from promptlesion.training.checkpoint import CheckpointError

SPACING = (1.0, 1.5, 2.0)
LABELS = {"background": 0, "organ": 1, "fat": 2, "bright": 3, "dark": 4}


@pytest.fixture
def case(tmp_path: Path) -> tuple[CachedCase, Dataset]:
    """A bright cube of 3 x 2 x 2 voxels in an organ of 100 HU, a dark one beside it, fat of -100 HU all around."""
    labels = np.full((20, 16, 14), 2, dtype=np.uint8)
    labels[3:17, 3:13, 3:11] = 1
    labels[6:9, 6:8, 5:7] = 3
    labels[11:13, 6:8, 5:7] = 4
    hu = np.array([0, 100, -100, 700, 20])[labels].astype(np.int16)
    hu[6, 6:8, 5:7] = 400  # a third of the bright lesion is darker
    affine = np.diag([*SPACING, 1.0])
    write_case(tmp_path / "data", "one", Volume(hu, affine), Volume(labels, affine))
    write_dataset_json(tmp_path / "data", labels=LABELS, num_training=1, extra={})
    kinds = {"host": ("organ",), "diameter_mm": (1.0, 9.0), "hu": (-200.0, 900.0)}
    spec = DatasetSpec(
        window_hu=(-200.0, 800.0),
        spacing_mm=SPACING,
        lesions=(LesionType(name="bright", label=3, **kinds), LesionType(name="dark", label=4, **kinds)),
    )
    write_spec(spec, tmp_path / "data" / "lesions.toml")
    dataset = open_dataset(tmp_path / "data")
    return build_cache(dataset, tmp_path / "cache")[0], dataset


def test_size_mean_spread_contrast_and_number_of_every_lesion(case: tuple[CachedCase, Dataset]) -> None:
    cached, dataset = case
    measured = measure_lesions([cached, cached], dataset.spec, dataset.labels).types
    bright, dark = measured["bright"], measured["dark"]
    assert bright.diameters_mm == pytest.approx([(6 / np.pi * 12 * 3.0) ** (1 / 3)] * 2, abs=0.01)
    assert bright.mean_hu == (600.0, 600.0)
    assert bright.std_hu == pytest.approx([np.std([400, 700, 700])] * 2, abs=0.05)
    # the fat and the other lesion, both within 5 mm, are no part of the host
    assert bright.contrast_hu == (500.0, 500.0)
    assert (dark.mean_hu, dark.contrast_hu, dark.counts_per_case) == ((20.0, 20.0), (-80.0, -80.0), (1, 1))
    assert LesionStatistics.model_validate(LesionStatistics(types=measured).model_dump(mode="json")).types == measured


def test_a_type_without_lesions_has_empty_lists_and_zeros(case: tuple[CachedCase, Dataset]) -> None:
    cached, dataset = case
    none = LesionType(name="none", label=7, host=("organ",), diameter_mm=(1.0, 2.0), hu=(0.0, 1.0))
    spec = dataset.spec.model_copy(update={"lesions": (*dataset.spec.lesions, none)})
    assert measure_lesions([cached], spec, dataset.labels).types["none"] == TypeStatistics(
        diameters_mm=(), mean_hu=(), std_hu=(), contrast_hu=(), counts_per_case=(0,)
    )


def test_a_lesion_that_took_up_its_host_is_compared_with_what_is_no_lesion() -> None:
    labels = np.full((9, 9, 9), 2, dtype=np.uint8)
    labels[4, 4, 4], labels[4, 4, 5] = 3, 4
    mask = labels == 3
    hu = np.array([0, 100, -100, 700, 5000])[labels]
    options = {"host_labels": [1], "lesion_labels": [3, 4], "spacing_mm": (1.0, 1.0, 1.0)}
    assert measure_lesion(hu, mask, labels, **options).contrast_hu == 800
    labels[:] = 4
    assert measure_lesion(hu, mask, labels, **options).contrast_hu == 0


def test_surroundings_end_at_five_millimetres() -> None:
    labels = np.ones((1, 1, 40), dtype=np.uint8)
    mask = np.zeros(labels.shape, dtype=bool)
    mask[0, 0, 20] = True
    hu = np.zeros(labels.shape, dtype=np.int16)
    hu[0, 0, 20] = 300
    hu[0, 0, 26:], hu[0, 0, :15] = -999, -999  # 6 mm and more away
    measured = measure_lesion(hu, mask, labels, host_labels=[1], lesion_labels=[2], spacing_mm=(1.0, 1.0, 1.0))
    assert measured.contrast_hu == 300


def test_of_many_lesions_an_even_choice_is_kept(
    case: tuple[CachedCase, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesion_statistics, "_MOST_KEPT", 3)
    cached, dataset = case
    measured = measure_lesions([cached] * 5, dataset.spec, dataset.labels).types["bright"]
    assert (len(measured.diameters_mm), len(measured.counts_per_case)) == (3, 3)
    assert lesion_statistics._evenly(7) == [0, 3, 6]


def test_lists_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one entry a lesion in every list, found lists of \[0, 1\]"):
        TypeStatistics(diameters_mm=(1.0,), mean_hu=(), std_hu=(), contrast_hu=(), counts_per_case=(1,))


def test_a_card_without_them_or_with_damaged_ones_is_refused(make_dataset: Callable[[int], Dataset]) -> None:
    run = Path("runs/old")
    with pytest.raises(CheckpointError, match=r"runs/old: expected lesion_statistics .* found none. An older version"):
        read_statistics({"stage": "diffusion"}, source=run)
    with pytest.raises(CheckpointError, match=r"runs/old: expected readable lesion_statistics"):
        read_statistics({"lesion_statistics": {"types": {"bright": {}}}}, source=run)
