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


def test_dynunet_plans_its_patch_itself() -> None:
    assert SegmentationConfig(network="dynunet", patch_voxels=24).channels is None
    with pytest.raises(ValidationError, match="channels: expected three or more for dynunet; found 2"):
        SegmentationConfig(network="dynunet", channels=(4, 8))


@pytest.mark.parametrize("name", ["scaling_range", "blur_sigma_voxels", "contrast_range", "gamma_range"])
def test_range_that_falls_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\n.*expected the smaller value first; found 1.5 and 0.5"):
        SegmentationConfig(**{name: (1.5, 0.5)})
    with pytest.raises(ValidationError, match="greater than 0"):
        SegmentationConfig(**{name: (0.0, 0.5)})
