"""Lesions cut out of dataset folders: their own voxels only, and only the new ones of a synthetic dataset."""

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, DatasetError, read_case
from promptlesion.evaluation.lesions import by_type, collect_lesions, read_sources

NAMES = ("hard_plaque", "soft_plaque")


def test_every_real_lesion_is_found_and_none_of_its_surroundings(datasets: tuple[Dataset, Dataset]) -> None:
    real, _ = datasets
    lesions = by_type(collect_lesions(real), NAMES)
    assert (len(lesions["hard_plaque"]), len(lesions["soft_plaque"])) == (3, 0)
    for lesion in lesions["hard_plaque"]:
        assert lesion.mean_hu == pytest.approx(600, abs=3)
        assert lesion.voxels_hu.min() > 500


def test_crop_lies_where_it_says(datasets: tuple[Dataset, Dataset]) -> None:
    real, _ = datasets
    lesion = collect_lesions(real, margin_voxels=4)[1]
    image, labels = read_case(real, real.case(lesion.case))
    box = tuple(slice(start, start + side) for start, side in zip(lesion.start_voxel, lesion.mask.shape, strict=True))
    np.testing.assert_array_equal(image.array[box], lesion.hu)
    np.testing.assert_array_equal(labels.array[box] == 3, lesion.mask)
    occupied = [np.flatnonzero(lesion.mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    assert [int(at[0]) for at in occupied] == [4, 4, 4]


def test_only_new_lesions_of_a_synthetic_dataset(datasets: tuple[Dataset, Dataset]) -> None:
    real, synthetic = datasets
    counts = []
    lesions = by_type(collect_lesions(synthetic, source=real, on_progress=lambda *count: counts.append(count)), NAMES)
    assert [len(lesions[name]) for name in NAMES] == [3, 3]
    assert np.mean([lesion.mean_hu for lesion in lesions["hard_plaque"]]) == pytest.approx(700, abs=3)
    assert counts == [(1, 3), (2, 3), (3, 3)]
    assert len(collect_lesions(synthetic)) == 9


def test_a_dataset_without_provenance_is_named(datasets: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(DatasetError, match=r"expected the provenance\.jsonl of a synthetic dataset"):
        read_sources(datasets[0].root)
