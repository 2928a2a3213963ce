"""A tiny configuration of stage 2."""

import pytest

from promptlesion.diffusion.config import DiffusionConfig


@pytest.fixture(scope="session")
def tiny_diffusion_config() -> DiffusionConfig:
    return DiffusionConfig(
        patch_voxels=24,
        num_levels=20,
        rescale_betas=True,
        prediction="v",
        channels=(8, 8),
        blocks_per_level=1,
        attention_levels=(1,),
        attention_head_channels=8,
        prompt_components=2,
        patches_per_lesion=3,
        num_steps=40,
        batch_size=2,
        learning_rate_decay="cosine",
        precision="float32",
        checkpoint_every_steps=3,
    )
