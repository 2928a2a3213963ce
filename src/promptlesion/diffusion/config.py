"""Settings of stage 2. The defaults are the paper's."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from promptlesion.training.optimisation import AveragedOptimisationConfig


def check_network(*, channels: Sequence[int], attention_levels: Sequence[int], attention_head_channels: int) -> None:
    """Refuse sizes from which no U-Net can be built; a `ValueError` names the field at fault."""
    if not all(0 <= level < len(channels) for level in attention_levels):
        raise ValueError(
            f"attention_levels: expected levels from 0 to {len(channels) - 1}, one for each entry "
            f"of channels; found {list(attention_levels)}"
        )
    if any(width < 8 or width % 8 for width in channels):
        raise ValueError(f"channels: expected multiples of 8; found {list(channels)}")
    for level in attention_levels:
        num_heads = max(1, channels[level] // attention_head_channels)
        if channels[level] % num_heads:
            raise ValueError(
                f"attention_head_channels: expected {channels[level]} channels of level {level} "
                f"to divide into {num_heads} heads; found {attention_head_channels}"
            )


class LatentDiffusionConfig(AveragedOptimisationConfig):
    """What any diffusion of latents is told: its levels, its U-Net, what it learns from."""

    patch_voxels: int = Field(96, ge=16, description="edge of the cubic patch around a lesion, voxels")
    num_levels: int = Field(400, ge=2, description="T, the number of noise levels of the training schedule")
    schedule: Literal["linear", "cosine", "rectified-flow"] = Field(
        "linear",
        description="course of the noise: betas that grow linearly, Nichol and Dhariwal's cosine (2021), or the "
        "straight way from data to pure noise (Liu et al. 2022)",
    )
    prediction: Literal["noise", "v", "velocity"] = Field(
        "noise",
        description="what the network predicts: the noise, v (Salimans and Ho 2022), or velocity, the noise less the "
        "latent; a rectified flow ends without signal, where the noise cannot be what is predicted",
    )
    channels: tuple[int, ...] = Field(
        (64, 128, 256, 256),
        min_length=2,
        description="channels at each resolution of the U-Net, the bottleneck last",
    )
    blocks_per_level: int = Field(2, ge=1, description="residual blocks at each resolution")
    attention_levels: tuple[int, ...] = Field((1, 2, 3), description="resolutions with self-attention, 0 is the finest")
    attention_head_channels: int = Field(32, ge=8, description="channels of one attention head")
    lesion_weight: float = Field(
        1.0, ge=1, description="weight of a latent voxel of the lesion in the loss; 1 is the plain mean"
    )
    patches_per_lesion: int = Field(
        8, ge=1, description="differently placed, turned and mirrored patches encoded for every training lesion"
    )

    @model_validator(mode="after")
    def _prediction_says_what_is_clean(self) -> "LatentDiffusionConfig":
        if self.schedule == "rectified-flow" and self.prediction == "noise":
            raise ValueError(
                "prediction: expected velocity or v where the schedule is rectified-flow, of which the last level is "
                "pure noise; found noise"
            )
        return self

    @model_validator(mode="after")
    def _network_can_be_built(self) -> "LatentDiffusionConfig":
        check_network(
            channels=self.channels,
            attention_levels=self.attention_levels,
            attention_head_channels=self.attention_head_channels,
        )
        return self


class DiffusionConfig(LatentDiffusionConfig):
    """The noise schedule, the denoising network, its prompt, and its training."""

    beta_start: float = Field(1e-4, gt=0, lt=1, description="variance added at the first level of the linear schedule")
    beta_end: float = Field(2e-2, gt=0, lt=1, description="variance added at the last level of the linear schedule")
    rescale_betas: bool = Field(
        False,
        description="scale both betas by 1000 / num_levels, so that the last level is nearly pure noise; linear only",
    )
    prompt_encoder: Literal["mask-transformer", "embedding", "one-hot", "none"] = Field(
        "mask-transformer",
        description="what turns the lesion type into a prompt: a transformer over the drawn mask, 64 learned figures "
        "for each type, or a one-hot vector; none: a U-Net without prompt, which cannot be guided",
    )
    prompt_key_value_heads: int = Field(
        1,
        ge=1,
        description="key/value heads of the MaskTransformer; 1 is multi-query attention, 4 multi-head",
    )
    prompt_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of training samples without prompt, for classifier-free guidance; "
        "not applied where prompt_encoder is none",
    )
    prompt_block: Literal["upsample", "components"] = Field(
        "upsample",
        description="what makes a feature map of the prompt: the embedding projected and upsampled, or learned "
        "components that the embedding's direction and the features mix",
    )
    prompt_components: int = Field(
        8, ge=1, description="learned prompt components that are mixed where prompt_block is components"
    )
    blank_margin_voxels: int = Field(
        2, ge=0, description="voxels around the lesion blanked with it in the surroundings"
    )
    denoise_lesions: bool = Field(
        False,
        description="learn lesions freed of noise by non-local means: few are soon known by heart, noise and all, and "
        "synthesis.keep_noise adds the scan's own",
    )
    mask: Literal["pooled", "whole"] = Field(
        "pooled",
        description="how the network is told the mask: by latent voxel, or every voxel of it, so that it knows where "
        "in a latent voxel the edge lies",
    )
    attributes: bool = Field(
        False,
        description="put into the prompt what the lesion is like too: mean HU, spread, percentiles, contrast, edge, "
        "mottling and diameter, each of which may be asked for or left open",
    )
    attribute_dropout: float = Field(
        0.2, ge=0, le=1, description="how often each attribute is left open in training; all of them are as often"
    )
    attribute_jitter: float = Field(
        0.1, ge=0, description="noise on the attributes in training, in standard deviations of the type"
    )
    warp_probability: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the patches that are bent, turned and scaled a little, lesion and mask together, beyond "
        "mirrors and quarter turns",
    )
    brightness_jitter: float = Field(
        0.0,
        ge=0,
        description="HU added to the lesions learned from, one value a patch, in standard deviations of their type's "
        "mean; the attributes say so",
    )
    loss: Literal["mse", "l1"] = Field("mse", description="of the prediction: mean squared or mean absolute error")
    min_snr_gamma: float | None = Field(
        None,
        gt=0,
        description="weigh the squared error of the clean latent by (signal / noise)^2, at most this, at every level; "
        "5 in Hang et al. 2023; unset: the prediction's error counts alike at all levels",
    )
    ema_decay: float = Field(
        0.999, gt=0, lt=1, description="decay of the weights' exponential moving average, which sampling uses"
    )

    @classmethod
    def of_card(cls, said: Any) -> "DiffusionConfig":
        """Read what a checkpoint's card says; an early one, without `prompt_block`, mixes components."""
        return cls.model_validate({"prompt_block": "components", **said})

    @model_validator(mode="after")
    def _components_are_used(self) -> "DiffusionConfig":
        default = type(self).model_fields["prompt_components"].default
        if self.prompt_block == "upsample" and self.prompt_components != default:
            raise ValueError(
                f"prompt_components: expected the default where prompt_block is upsample, which has none; found "
                f"{self.prompt_components}"
            )
        return self

    @model_validator(mode="after")
    def _errors_that_are_weighed_are_squared(self) -> "DiffusionConfig":
        if self.min_snr_gamma is not None and self.loss != "mse":
            raise ValueError(
                f"min_snr_gamma: expected none where loss is {self.loss}, as it weighs squared errors; found "
                f"{self.min_snr_gamma:g}"
            )
        return self

    @model_validator(mode="after")
    def _betas_are_used(self) -> "DiffusionConfig":
        fields = type(self).model_fields
        unused = [
            name
            for name in ("beta_start", "beta_end", "rescale_betas")
            if self.schedule != "linear" and getattr(self, name) != fields[name].default
        ]
        if unused:
            raise ValueError(
                f"{', '.join(unused)}: expected the default where the schedule is {self.schedule}, which has no use "
                f"for it; found {', '.join(str(getattr(self, name)) for name in unused)}"
            )
        return self

    @model_validator(mode="after")
    def _attributes_have_a_prompt(self) -> "DiffusionConfig":
        if self.attributes and self.prompt_encoder == "none":
            raise ValueError("attributes: expected false where prompt_encoder is none, without a prompt; found true")
        return self
