"""The settings of stage 2 are the paper's unless said otherwise, and refuse what cannot work."""

import pytest
from pydantic import ValidationError

from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import build_denoiser


def test_the_defaults_are_the_papers() -> None:
    config = DiffusionConfig()
    assert (config.num_levels, config.num_steps, config.batch_size) == (400, 60_000, 4)
    assert (config.learning_rate, config.adam_betas, config.prediction) == (1e-4, (0.9, 0.999), "noise")
    assert (config.beta_start, config.beta_end, config.rescale_betas) == (1e-4, 2e-2, False)
    assert (config.loss, config.schedule, config.prompt_encoder) == ("mse", "linear", "mask-transformer")


def test_attention_where_there_is_no_level_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"attention_levels: expected levels from 0 to 1.*found \[1, 2, 3\]"):
        DiffusionConfig(channels=(16, 16))


def test_channels_that_make_no_groups_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"channels: expected multiples of 8; found \[16, 44\]"):
        DiffusionConfig(channels=(16, 44), attention_levels=())


def test_channels_that_make_no_heads_are_refused() -> None:
    with pytest.raises(ValidationError, match="expected 112 channels of level 1 to divide into 3 heads; found 32"):
        DiffusionConfig(channels=(16, 112), attention_levels=(1,))


@pytest.mark.parametrize("channels", [(8, 8), (24, 40, 56), (48, 64, 96, 96)])
def test_what_is_accepted_can_be_built(channels: tuple[int, ...]) -> None:
    config = DiffusionConfig(channels=channels, attention_levels=(1,), attention_head_channels=8)
    build_denoiser(config, latent_channels=4, latent_voxels=6, num_types=2)


def test_noise_is_not_predicted_where_there_is_nothing_else() -> None:
    with pytest.raises(ValidationError, match=r"prediction: expected velocity or v .* rectified-flow.*; found noise"):
        DiffusionConfig(schedule="rectified-flow")
    for prediction in ("velocity", "v"):
        DiffusionConfig.model_validate({"schedule": "rectified-flow", "prediction": prediction})
    with pytest.raises(ValidationError, match=r"rescale_betas: expected the default .*rectified-flow.*found True"):
        DiffusionConfig(schedule="rectified-flow", prediction="velocity", rescale_betas=True)


def test_components_that_nothing_mixes_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"prompt_components: expected the default .*upsample.*; found 4"):
        DiffusionConfig(prompt_components=4)
    assert DiffusionConfig(prompt_components=4, prompt_block="components").prompt_components == 4


def test_weights_of_squared_errors_are_refused_where_none_are_squared() -> None:
    with pytest.raises(ValidationError, match=r"min_snr_gamma: expected none where loss is l1.*; found 5"):
        DiffusionConfig(loss="l1", min_snr_gamma=5)


def test_a_card_without_prompt_block_mixes_components() -> None:
    assert DiffusionConfig.of_card({"num_steps": 7, "prompt_components": 3}).prompt_block == "components"
    upsampled = DiffusionConfig()
    assert DiffusionConfig.of_card(upsampled.model_dump(mode="json")) == upsampled


def test_betas_that_no_schedule_uses_are_refused() -> None:
    assert DiffusionConfig(schedule="cosine").schedule == "cosine"
    with pytest.raises(ValidationError, match=r"beta_end, rescale_betas: expected the default .*cosine.*0.03, True"):
        DiffusionConfig(schedule="cosine", beta_end=0.03, rescale_betas=True)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_setps"):
        DiffusionConfig.model_validate({"num_setps": 12})
