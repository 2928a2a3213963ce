"""Settings of stage 3. The defaults are the paper's."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from promptlesion.data.spec import HURange
from promptlesion.training.optimisation import OptimisationConfig


class SegmentationConfig(OptimisationConfig):
    """The segmentation network and its training."""

    network: Literal["unet", "dynunet", "nnunetv2"] = Field(
        "unet",
        description="MONAI's residual 3-D U-Net; nnU-Net's architecture with deep supervision; or nnU-Net v2 itself",
    )
    patch_voxels: int = Field(96, ge=16, multiple_of=8, description="edge of the cubic patch, voxels")
    channels: tuple[int, ...] | None = Field(
        None,
        min_length=2,
        description="channels at each resolution; unset: 32, 64, 128, 256 for unet, and for dynunet nnU-Net's: 32 "
        "doubled up to 320, at as many resolutions as the patch has at the dataset's spacing",
    )
    extra_windows_hu: tuple[HURange, ...] = Field(
        (),
        description="further HU windows, each an input channel beside the dataset's own window, [[-100, 200]] say: in "
        "a window wide enough for calcium a soft tumour hardly differs from its organ; not for nnunetv2",
    )
    residual_units: int = Field(2, ge=0, description="residual units at each resolution of unet; dynunet has none")
    synthetic_ratio: float = Field(
        1.0, ge=0, description="synthetic patches per real patch when there are synthetic cases"
    )
    lesion_weight: float = Field(
        1.0, ge=1, description="weight of a lesion voxel in the cross-entropy; any other voxel weighs 1"
    )
    mirror_probability: float = Field(0.5, ge=0, le=1, description="how often a patch is mirrored, for each axis")
    rotation_probability: float = Field(0.2, ge=0, le=1, description="how often a patch is turned")
    max_rotation_degrees: ClassVar[float] = 30.0
    """About each axis."""
    scaling_probability: float = Field(0.2, ge=0, le=1, description="how often a patch is made larger or smaller")
    scaling_range: ClassVar[tuple[float, float]] = (0.7, 1.4)
    noise_probability: float = Field(0.1, ge=0, le=1, description="how often noise is added to a patch")
    max_noise_std: ClassVar[float] = 0.04
    """Share of the HU window."""
    blur_probability: float = Field(0.1, ge=0, le=1, description="how often a patch is blurred")
    blur_sigma_voxels: ClassVar[tuple[float, float]] = (0.5, 1.0)
    brightness_probability: float = Field(0.15, ge=0, le=1, description="how often a patch is made brighter or darker")
    max_brightness_shift: ClassVar[float] = 0.05
    """Share of the HU window."""
    contrast_probability: float = Field(0.15, ge=0, le=1, description="how often a patch's contrast is changed")
    contrast_range: ClassVar[tuple[float, float]] = (0.75, 1.25)
    gamma_probability: float = Field(0.3, ge=0, le=1, description="how often a patch's gamma is changed")
    gamma_range: ClassVar[tuple[float, float]] = (0.7, 1.5)
    num_epochs: int = Field(500, ge=1, description="longest training, epochs")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="steps in an epoch; unset: as many as one patch per real case takes"
    )
    patience_epochs: int = Field(
        25,
        ge=1,
        description="epochs without a better validation Dice after which training stops, counted once it is above 0",
    )
    validate_every_epochs: int = Field(1, ge=1, description="epochs between two validations on whole scans")
    batch_size: int = Field(12, ge=1, description="patches in a step")
    learning_rate: float = Field(2e-4, gt=0, description="learning rate of Adam")
    window_overlap: float = Field(
        0.25, ge=0, lt=1, description="overlap of neighbouring prediction windows, as a share of the patch"
    )
    nnunet_environment: str | None = Field(
        None,
        description="folder of a virtual environment that has nnunetv2, for the network nnunetv2; unset: this "
        "environment, or the one whose commands are on PATH",
    )
    nnunet_memory_gb: float | None = Field(
        None, gt=0, description="GPU memory that nnU-Net plans patch and batch for, GB; unset: nnU-Net's own 8"
    )

    @model_validator(mode="after")
    def _fits_the_network(self) -> "SegmentationConfig":
        divisor = 2 ** (len(self.unet_channels) - 1)
        if self.network == "unet" and self.patch_voxels % divisor:
            raise ValueError(
                f"patch_voxels: expected a multiple of {divisor}, which {len(self.unet_channels)} channels "
                f"halve it to; found {self.patch_voxels}"
            )
        if self.network == "nnunetv2" and self.extra_windows_hu:
            raise ValueError(
                "extra_windows_hu: expected none for nnunetv2, which normalises by itself; "
                f"found {len(self.extra_windows_hu)}"
            )
        if self.network == "dynunet" and self.channels is not None and len(self.channels) < 3:
            raise ValueError(f"channels: expected three or more for dynunet; found {len(self.channels)}")
        return self

    @property
    def unet_channels(self) -> tuple[int, ...]:
        """Channels of the network `unet`, each resolution half of the one before."""
        return self.channels or (32, 64, 128, 256)
