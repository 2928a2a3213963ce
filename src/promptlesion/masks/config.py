"""Settings of the masks, a part of synthesis's. The defaults are the paper's."""

from pydantic import BaseModel, ConfigDict, Field


class MaskConfig(BaseModel):
    """How sizes and shapes are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deformation: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="amplitude of an ellipsoid's surface deformation, as a share of its radius",
    )
    size_range_lesions: int = Field(
        0,
        ge=0,
        description="training lesions of a type that its diameter_mm in lesions.toml counts as when a size is drawn; "
        "few lesions do not show what sizes there are. 0: sizes are those of training lesions alone",
    )
