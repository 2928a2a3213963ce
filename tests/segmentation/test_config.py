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


def test_what_is_no_setting_any_more_may_say_what_it_is_and_nothing_else() -> None:
    """As files do that an older version wrote."""
    config = SegmentationConfig.model_validate({"scaling_range": [0.7, 1.4], "max_noise_std": 0.04})
    assert config == SegmentationConfig()
    assert "scaling_range" not in config.model_dump()
    with pytest.raises(ValidationError, match=r"scaling_range: expected \(0\.7, 1\.4\), which is no setting any more"):
        SegmentationConfig.model_validate({"scaling_range": [0.5, 1.4]})
