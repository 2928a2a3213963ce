import pytest
from pydantic import ValidationError

from promptlesion.segmentation.config import SegmentationConfig


def test_defaults_are_the_papers() -> None:
    config = SegmentationConfig()
    assert (config.patch_voxels, config.batch_size, config.learning_rate) == (96, 12, 2e-4)
    assert (config.num_epochs, config.patience_epochs, config.synthetic_ratio) == (500, 25, 1.0)
    assert config.adam_betas == (0.9, 0.999)


def test_patch_that_does_not_halve_evenly_is_refused() -> None:
    with pytest.raises(ValidationError, match="patch_voxels: expected a multiple of 16"):
        SegmentationConfig(patch_voxels=24, channels=(4, 8, 16, 32, 64))
