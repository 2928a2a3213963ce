"""Settings of stage 3. The defaults are the paper's."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SegmentationConfig(BaseModel):
    """The segmentation network and its training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch_voxels: int = Field(96, ge=16, multiple_of=8, description="edge of the cubic patch, voxels")
    channels: tuple[int, ...] = Field(
        (32, 64, 128, 256),
        min_length=2,
        description="channels at each resolution of the U-Net, the first half the scan's, "
        "each further one half the one before",
    )
    residual_units: int = Field(2, ge=0, description="residual units at each resolution")
    synthetic_ratio: float = Field(
        1.0, ge=0, description="synthetic patches per real patch when there are synthetic cases"
    )
    lesion_weight: float = Field(
        1.0, ge=1, description="weight of a lesion voxel in the cross-entropy; any other voxel weighs 1"
    )
    num_epochs: int = Field(500, ge=1, description="longest training, epochs")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="steps in an epoch; unset: as many as one patch per real case takes"
    )
    patience_epochs: int = Field(
        25, ge=1, description="epochs without a better validation Dice after which training stops"
    )
    validate_every_epochs: int = Field(1, ge=1, description="epochs between two validations on whole scans")
    batch_size: int = Field(12, ge=1, description="patches in a step")
    learning_rate: float = Field(2e-4, gt=0, description="learning rate of Adam")
    learning_rate_decay: Literal["none", "cosine"] = Field(
        "none", description="course of the learning rate: constant, or to zero along half a cosine"
    )
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of Adam's moments")
    window_overlap: float = Field(
        0.25, ge=0, lt=1, description="overlap of neighbouring prediction windows, as a share of the patch"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the network; auto: bfloat16 where the hardware has it"
    )

    @model_validator(mode="after")
    def _patch_halves_evenly(self) -> "SegmentationConfig":
        divisor = 2 ** (len(self.channels) - 1)
        if self.patch_voxels % divisor:
            raise ValueError(
                f"patch_voxels: expected a multiple of {divisor}, which {len(self.channels)} channels "
                f"halve it to; found {self.patch_voxels}"
            )
        return self
