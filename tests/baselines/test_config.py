"""The baselines' settings are their papers', and what cannot be built is refused."""

import pytest
from pydantic import BaseModel, ValidationError

from promptlesion.baselines.config import DiffTumorConfig, MedDDPMConfig
from promptlesion.config import ConfigError, resolve_config
from promptlesion.diffusion.config import DiffusionConfig


def test_difftumor_is_stage_2_without_prompt() -> None:
    config = DiffTumorConfig(prediction="v", channels=(8, 16), attention_levels=(1,), num_steps=3)
    diffusion = config.as_diffusion()
    assert isinstance(diffusion, DiffusionConfig)
    assert diffusion.prompt_encoder == "none"
    assert {name: getattr(diffusion, name) for name in type(config).model_fields} == config.model_dump()


def test_the_papers_figures() -> None:
    config = resolve_config(preset="paper")
    difftumor, med_ddpm = config.difftumor, config.med_ddpm
    assert (difftumor.patch_voxels, difftumor.num_levels, difftumor.num_steps) == (96, 400, 60_000)
    assert (difftumor.batch_size, difftumor.learning_rate, difftumor.loss) == (4, 1e-4, "l1")
    assert (med_ddpm.patch_voxels, med_ddpm.num_levels, med_ddpm.loss) == (96, 250, "l1")


@pytest.mark.parametrize("model", [DiffTumorConfig, MedDDPMConfig])
def test_a_network_that_cannot_be_built_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="attention_levels: expected levels from 0 to 1"):
        model.model_validate({"channels": (8, 16), "attention_levels": (2,)})
    with pytest.raises(ValidationError, match="channels: expected multiples of 8"):
        model.model_validate({"channels": (8, 12), "attention_levels": ()})


def test_betas_are_not_rescaled_where_there_are_none() -> None:
    with pytest.raises(ValidationError, match="rescale_betas: expected false with the cosine schedule"):
        DiffTumorConfig(schedule="cosine", rescale_betas=True)


def test_difftumor_may_learn_a_rectified_flow_but_not_its_noise() -> None:
    flow = DiffTumorConfig(schedule="rectified-flow", prediction="velocity")
    assert flow.as_diffusion().schedule == "rectified-flow"
    with pytest.raises(
        ValidationError, match="prediction: expected velocity or v where the schedule is rectified-flow"
    ):
        DiffTumorConfig(schedule="rectified-flow")


def test_the_patch_must_suit_the_autoencoder() -> None:
    with pytest.raises(ConfigError, match=r"difftumor\.patch_voxels: expected a multiple of 4, .*found 50"):
        resolve_config(preset="demo", settings=["difftumor.patch_voxels=50"])
