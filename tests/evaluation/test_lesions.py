"""Lesions cut out of dataset folders: their own voxels only, and only the new ones of a synthetic dataset."""

import numpy as np
import pytest

from promptlesion.data.dataset import Dataset, DatasetError, read_case
from promptlesion.evaluation.lesions import by_type, collect_lesions, painted_crop, read_sources

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


def test_small_fragments_may_be_left_out(datasets: tuple[Dataset, Dataset]) -> None:
    assert collect_lesions(datasets[0], min_voxels=10_000) == []


def test_a_dataset_without_provenance_is_named(datasets: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(DatasetError, match=r"expected the provenance\.jsonl of a synthetic dataset"):
        read_sources(datasets[0].root)


@pytest.mark.parametrize("margin_voxels", [0, 4, 16])
def test_a_lesion_painted_in_memory_is_cut_as_from_a_synthetic_scan(
    datasets: tuple[Dataset, Dataset], margin_voxels: int
) -> None:
    """The painted box may end before the crop does, or reach beyond it."""
    real, synthetic = datasets
    for expected in collect_lesions(synthetic, source=real, margin_voxels=margin_voxels):
        (wide,) = [
            lesion
            for lesion in collect_lesions(synthetic, source=real, margin_voxels=3)
            if (lesion.case, lesion.lesion_type) == (expected.case, expected.lesion_type)
        ]
        x, y, z = (slice(a, a + n) for a, n in zip(wide.start_voxel, wide.mask.shape, strict=True))
        source, _ = read_case(real, real.case(read_sources(synthetic.root)[expected.case]))
        crop = painted_crop(
            source,
            wide.hu,
            wide.mask,
            (x, y, z),
            case=expected.case,
            subject=expected.subject,
            lesion_type=expected.lesion_type,
            margin_voxels=margin_voxels,
        )
        assert crop.start_voxel == expected.start_voxel
        np.testing.assert_array_equal(crop.mask, expected.mask)
        np.testing.assert_array_equal(crop.hu[crop.mask], expected.hu[expected.mask])
        assert crop.hu.dtype == expected.hu.dtype
        assert (crop.case, crop.subject, crop.lesion_type) == (expected.case, expected.subject, expected.lesion_type)
        assert crop.spacing_mm == expected.spacing_mm
