"""Settings of any training: how its networks descend. Imports no torch."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Decay = Literal["none", "cosine"]
Precision = Literal["auto", "float32", "bfloat16"]


class Settings(BaseModel):
    """A section of the configuration. Its class variables were settings once: any other value is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _constants_stay(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name in cls.__class_vars__ & given.keys():
            constant, found = getattr(cls, name), given[name]
            if (tuple(found) if isinstance(found, list) else found) != constant:
                raise ValueError(f"{name}: expected {constant}, which is no setting any more; found {found}")
        return {name: value for name, value in given.items() if name not in cls.__class_vars__}


class OptimisationConfig(Settings):
    """What every training is told; the stages add what they are."""

    batch_size: int = Field(4, ge=1, description="patches in a step")
    learning_rate: float = Field(1e-4, gt=0, description="learning rate of Adam")
    learning_rate_decay: Decay = Field(
        "none", description="course of the learning rate: constant, or to zero along half a cosine"
    )
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="decay rates of Adam's moments")
    precision: Precision = Field(
        "auto", description="arithmetic of the networks; auto: bfloat16 where the hardware has it"
    )


class AveragedOptimisationConfig(OptimisationConfig):
    """Of a training that is so many steps long and keeps the average of the weights."""

    num_steps: int = Field(60_000, ge=1, description="length of the training, steps")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients of a larger norm are scaled down to it")
    ema_decay: float = Field(
        0.995, gt=0, lt=1, description="decay of the weights' exponential moving average, which sampling uses"
    )
    checkpoint_every_steps: int = Field(500, ge=1, description="steps between two saved states")
