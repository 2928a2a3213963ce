"""Settings of stage 1. The defaults are the paper's."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from promptlesion.training.optimisation import OptimisationConfig


class AutoencoderConfig(OptimisationConfig):
    """The VQGAN, its losses and its training."""

    patch_voxels: int = Field(96, ge=16, multiple_of=8, description="edge of the cubic training patch, voxels")
    widths: tuple[int, ...] = Field(
        (16, 32, 64),
        min_length=2,
        description="channels at each resolution; every further entry halves the resolution",
    )
    blocks_per_level: int = Field(1, ge=1, description="residual blocks at each resolution")
    latent_channels: int = Field(8, ge=1, description="channels of the latent, the dimension of a code")
    codebook_size: int = Field(16384, ge=2, description="number of codes")
    codebook_decay: float = Field(0.99, gt=0, lt=1, description="decay of the codebook's exponential moving average")
    quantizer_start_epoch: int = Field(
        0,
        ge=0,
        description="epoch from which the latent is quantized; before it there is no codebook, and then it "
        "starts from latents that already mean something",
    )
    commitment_weight: float = Field(0.25, ge=0, description="weight of the codebook commitment loss")
    dead_code_usage: ClassVar[float] = 0.1
    """A code used less than this share of the average code is restarted."""
    lesion_weight: float = Field(
        20.0,
        ge=1,
        description="weight of a lesion voxel in the L1 loss, where lesions are few; any other voxel weighs 1",
    )
    perceptual_weight: float = Field(0.1, ge=0, description="weight of the perceptual loss")
    perceptual_network: Literal["imagenet", "medicalnet"] = Field(
        "imagenet",
        description="what the perceptual loss compares: features of an ImageNet network on slices of all three axes, "
        "or of MedicalNet on the whole patch, which needs medicalnet_weights",
    )
    medicalnet_weights: str | None = Field(
        None,
        min_length=1,
        description="path of a file of MedicalNet's on this machine: resnet_10.pth, resnet_18.pth, resnet_34.pth, "
        "resnet_50.pth, or one ending in _23dataset.pth",
    )
    slices_per_axis: int = Field(
        2, ge=1, description="slices per axis that the perceptual loss on slices and the slice discriminator see"
    )
    adversarial_weight: float = Field(0.1, ge=0, description="weight of each of the two adversarial losses")
    adversarial_weighting: Literal["fixed", "adaptive"] = Field(
        "fixed",
        description="what adversarial_weight multiplies: 1, or the ratio of the gradients of reconstruction and "
        "adversarial losses at the decoder's last layer, found anew in every step",
    )
    feature_matching_weight: float = Field(1.0, ge=0, description="weight of the feature matching loss")
    adversarial_start_epoch: int = Field(100, ge=0, description="epoch at which the discriminators switch on")
    discriminator_channels: int = Field(32, ge=4, description="channels of the first layer of both discriminators")
    discriminator_layers: int = Field(3, ge=1, description="strided layers of both discriminators")
    num_epochs: int = Field(1000, ge=1, description="length of the training, epochs")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="steps in an epoch; unset: as many as one patch per case takes"
    )
    learning_rate: float = Field(3e-4, gt=0, description="learning rate of Adam, generator and discriminators alike")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients of a larger norm are scaled down to it")
    checkpoint_every_steps: int = Field(500, ge=1, description="steps between two saved states")

    @model_validator(mode="after")
    def _everything_starts_within_the_run(self) -> "AutoencoderConfig":
        if self.quantizer_start_epoch >= self.num_epochs:
            raise ValueError(
                f"quantizer_start_epoch: expected less than num_epochs ({self.num_epochs}), so that there is "
                f"a codebook; found {self.quantizer_start_epoch}"
            )
        if self.adversarial_weight > 0 and self.adversarial_start_epoch >= self.num_epochs:
            raise ValueError(
                f"adversarial_start_epoch: expected less than num_epochs ({self.num_epochs}), so that the "
                f"discriminators train at all; found {self.adversarial_start_epoch}. "
                "Set adversarial_weight = 0 to train without them"
            )
        return self

    @model_validator(mode="after")
    def _medicalnet_has_its_file(self) -> "AutoencoderConfig":
        if self.perceptual_network == "medicalnet" and self.medicalnet_weights is None:
            raise ValueError(
                "medicalnet_weights: expected the path of a MedicalNet file for perceptual_network = 'medicalnet'; "
                "found none"
            )
        if self.perceptual_network != "medicalnet" and self.medicalnet_weights is not None:
            raise ValueError(
                "medicalnet_weights: expected none, as it has no effect with perceptual_network = "
                f"{self.perceptual_network!r}; found {self.medicalnet_weights!r}"
            )
        return self

    @model_validator(mode="after")
    def _patch_divides(self) -> "AutoencoderConfig":
        if self.patch_voxels % self.downsampling:
            raise ValueError(
                f"patch_voxels: expected a multiple of {self.downsampling}, which {len(self.widths)} widths "
                f"reduce it by; found {self.patch_voxels}"
            )
        return self

    @property
    def downsampling(self) -> int:
        """Voxels of the patch per voxel of the latent, on every axis."""
        return 1 << (len(self.widths) - 1)
