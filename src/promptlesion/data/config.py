"""How a dataset is split into training, validation and test."""

from typing import TypedDict

from pydantic import BaseModel, ConfigDict, Field


class SplitOptions(TypedDict):
    """What `dataset_split` wants to know."""

    validation_fraction: float
    test_fraction: float
    seed: int


class DataConfig(BaseModel):
    """Which cases train, validate and test when the dataset folder does not say it itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    validation_fraction: float = Field(
        0.15, ge=0, lt=1, description="share of subjects that stop and select models; stages 1 and 2 can do without"
    )
    test_fraction: float = Field(
        0.3, ge=0, lt=1, description="share of subjects no stage sees before the evaluation; 0 where none is to follow"
    )
    split_seed: int = Field(
        0, ge=0, description="seed of the split; the same for every stage, whatever seed the stage has"
    )

    def split_options(self) -> SplitOptions:
        """Return the fields as keyword arguments."""
        return {
            "validation_fraction": self.validation_fraction,
            "test_fraction": self.test_fraction,
            "seed": self.split_seed,
        }
