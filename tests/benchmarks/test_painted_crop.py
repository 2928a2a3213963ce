"""A lesion painted in memory is cut as one from a dataset folder."""

import numpy as np
import pytest
from measure.painted_crop import painted_crop

from promptlesion.data.dataset import Dataset, read_case
from promptlesion.evaluation.lesions import collect_lesions, read_sources


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
