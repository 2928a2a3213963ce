"""Settings of synthesis. The defaults are the paper's."""

from typing import Any, Literal

from pydantic import Field, field_validator

from promptlesion.masks.config import MaskConfig


class SynthesisConfig(MaskConfig):
    """How lesions are drawn, sampled and blended."""

    sampler: Literal["ancestral", "ddim", "dpm-solver++"] = Field(
        "ancestral", description="the paper's ancestral sampler, or one without fresh noise: DDIM, or DPM-Solver++(2M)"
    )
    num_steps: int = Field(400, ge=1, description="noise levels visited when sampling, at most the schedule's")
    init: Literal["healthy", "noise"] = Field(
        "healthy", description="start from the noised healthy latent, or from noise alone"
    )
    reinject_background: bool = Field(
        False,
        description="after every sampling step put the healthy latent, noised alike, back outside the blanked region",
    )
    guidance_scale: float = Field(1.0, ge=0, description="classifier-free guidance, of every lesion type; 1 is off")
    keep_noise: bool = Field(
        True, description="give the lesion noise like the scan's at its place, which the autoencoder drops"
    )
    edge: Literal["margin", "blur"] = Field(
        "margin",
        description="how far a painted lesion goes on beside its mask: over the margin the model repaints, or as far "
        "as the scan itself blurs, if that is less",
    )
    match_moments: bool = Field(
        False,
        description="bring mean, spread and mottling of a painted lesion, in HU, to what was asked of it; of a method "
        "that knows attributes",
    )
    lesions_per_case: int = Field(
        10, ge=1, description="most lesions painted into one scan; how many it gets is drawn from the training cases"
    )
    max_attempts: int = Field(
        3, ge=1, description="times a lesion is sampled, each with noise of its own, until it passes the quality filter"
    )
    accept_all: bool = Field(
        False,
        description="keep every lesion as first sampled; what the quality filter measures is recorded all the same",
    )

    @field_validator("guidance_scale", mode="before")
    @classmethod
    def _is_not_fitted(cls, given: Any) -> Any:
        if given == "fitted":
            raise ValueError(
                "expected a number, as guidance is fitted no more; diffusion.attributes and synthesis.match_moments "
                "make lesions as bright as they should be"
            )
        return given
