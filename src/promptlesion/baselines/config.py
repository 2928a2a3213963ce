"""Settings of the methods ours is compared with. The defaults are their papers' where those state any."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from promptlesion.diffusion.config import DiffusionConfig, LatentDiffusionConfig, check_network
from promptlesion.training.optimisation import AveragedOptimisationConfig, Settings

EDGE_SOFTNESS_VOXELS = 0.75
"""Blur of the scanner at a lesion's edge, standard deviation in voxels of the spacing."""


class DiffTumorConfig(LatentDiffusionConfig):
    """DiffTumor (Chen et al., CVPR 2024): its diffusion model, of which every lesion type gets its own.

    *(reading)* The released models have T = 4; this paper compares both methods at 400 steps, so T and the schedule
    are those of PromptLesion. The surroundings are blanked by the exact mask. The U-Net on 24³ latents starts at 24
    channels, its multipliers are 1, 2, 4, 8.
    """

    rescale_betas: bool = Field(
        False, description="scale the linear schedule's betas by 1000 / num_levels, to nearly pure noise at the last"
    )
    channels: tuple[int, ...] = Field(
        (24, 48, 96, 192),
        min_length=2,
        description="channels at each resolution of the U-Net, the bottleneck last",
    )
    blank_margin_voxels: int = Field(
        0, ge=0, description="voxels around the lesion blanked with it in the surroundings"
    )
    loss: Literal["mse", "l1"] = Field("l1", description="of the prediction: mean squared or mean absolute error")
    num_steps: int = Field(60_000, ge=1, description="length of the training of each type's model, steps")

    @model_validator(mode="after")
    def _betas_are_used(self) -> "DiffTumorConfig":
        if self.schedule != "linear" and self.rescale_betas:
            raise ValueError(
                f"rescale_betas: expected false with the {self.schedule} schedule, which has no use for it; found true"
            )
        return self

    def as_diffusion(self) -> DiffusionConfig:
        """Return the settings as those of stage 2, without any prompt."""
        return DiffusionConfig.model_validate({**self.model_dump(), "prompt_encoder": "none"})


class MedDDPMConfig(AveragedOptimisationConfig):
    """Med-DDPM (Dorjsembe et al., IEEE JBHI 2024): diffusion of the voxels themselves, told where which label is.

    Its schedule is the cosine, it predicts the noise, T = 250, L1. *(reading)* The label channels are the lesion types,
    as the other labels of a scan are not what a method is asked for. 100 000 steps, the learning rate, the average's
    decay and batches of one that are summed in pairs are those of its public code. Its U-Net is that of Dhariwal and
    Nichol 2021 with 64 channels, multipliers 1, 1, 2, 3, 4 and attention at an eighth of the edge and below; its
    resampling blocks count here as a level's second residual block.
    """

    patch_voxels: int = Field(96, ge=16, description="edge of the cubic patch that is painted, voxels")
    num_levels: int = Field(250, ge=2, description="T, the number of noise levels of the cosine schedule")
    prediction: Literal["noise", "v"] = Field(
        "noise", description="what the network predicts: the noise, as in the paper, or v (Salimans and Ho 2022)"
    )
    channels: tuple[int, ...] = Field(
        (64, 64, 128, 192, 256),
        min_length=2,
        description="channels at each resolution of the U-Net, the bottleneck last",
    )
    blocks_per_level: int = Field(2, ge=1, description="residual blocks at each resolution")
    attention_levels: tuple[int, ...] = Field((3, 4), description="resolutions with self-attention, 0 is the finest")
    attention_head_channels: int = Field(64, ge=8, description="channels of one attention head")
    loss: Literal["mse", "l1"] = Field("l1", description="of the prediction: mean squared or mean absolute error")
    edge_voxels: ClassVar[int] = 3
    """Width of the edge over which a painted lesion is blended into the scan."""
    num_steps: int = Field(100_000, ge=1, description="length of the training, steps")
    batch_size: int = Field(2, ge=1, description="patches in a step")
    learning_rate: float = Field(1e-5, gt=0, description="learning rate of Adam")

    @model_validator(mode="after")
    def _network_can_be_built(self) -> "MedDDPMConfig":
        check_network(
            channels=self.channels,
            attention_levels=self.attention_levels,
            attention_head_channels=self.attention_head_channels,
        )
        return self


class CopyPasteConfig(Settings):
    """Copy-paste of real lesions, after TumorCP (Yang et al., MICCAI 2021): nothing is trained.

    *(reading)* What the paper calls rigid and elastic transforms is here the turning, mirroring, scaling and waving of
    real shapes, done to mask and voxels together; its gamma works on the lesion's own range of HU, as the dataset's
    window would change what tissue it is.
    """

    gamma: tuple[float, float] = Field(
        (0.8, 1.25), description="exponent of a lesion's HU, between its least and its most; smallest and largest drawn"
    )
    blur_voxels: ClassVar[float] = 0.5
    """Most a lesion is blurred, standard deviation in voxels of the dataset's spacing."""
    transform_probability: ClassVar[float] = 0.5
    """Share of lesions given a gamma, and a blur."""
    edge_softness_voxels: ClassVar[float] = EDGE_SOFTNESS_VOXELS
    max_lesions_per_type: ClassVar[int] = 200
    """Training lesions of a type that are kept."""


class IntensityConfig(Settings):
    """Hand-made lesions: a level and a texture like those of the training lesions, under a soft edge."""

    level_jitter: float = Field(
        0.3, ge=0, description="spread of a lesion's HU around a training lesion's, as a share of theirs"
    )
    edge_softness_voxels: ClassVar[float] = EDGE_SOFTNESS_VOXELS
