"""Settings of the evaluation."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EvaluationConfig(BaseModel):
    """How results are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    surface_tolerance_mm: float = Field(2.0, gt=0, description="tolerance of the surface Dice")
    num_resamples: int = Field(2000, ge=100, description="bootstrap resamples behind every interval")
    feature_margin_voxels: int = Field(
        16, ge=0, description="voxels around a lesion's bounding box that the lesion FID crops"
    )
    extractors: tuple[Literal["imagenet", "medicalnet", "ct"], ...] = Field(
        ("imagenet",),
        min_length=1,
        description="networks whose features FID and KID compare: ImageNet's on slices, which is here already; "
        "MedicalNet, from medicalnet_weights; one trained on CT, from the extra ct-features",
    )
    medicalnet_weights: str | None = Field(None, description="MedicalNet's file, as resnet_50.pth; the paper's network")
    medicalnet_sha256: str | None = Field(
        None, description="SHA-256 that the file must have; unset: any, and it is recorded"
    )

    @model_validator(mode="after")
    def _weights_have_a_use(self) -> "EvaluationConfig":
        if "medicalnet" in self.extractors and self.medicalnet_weights is None:
            raise ValueError("medicalnet_weights: expected the path of MedicalNet's file, as resnet_50.pth; found none")
        if "medicalnet" not in self.extractors and (self.medicalnet_weights or self.medicalnet_sha256):
            raise ValueError(
                "medicalnet_weights, medicalnet_sha256: expected with medicalnet among the extractors; found without"
            )
        return self
