"""Measured figures as records that are written as JSON and read back."""

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """A record that does not change; unknown keys, and figures that are not finite, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Frozen):
    """A figure and its bootstrap interval; None where nothing was counted, no interval below two values."""

    value: float | None = Field(description="the estimate itself")
    low: float | None = Field(default=None, description="lower end of the interval")
    high: float | None = Field(default=None, description="upper end of the interval")


class FidelityRow(Frozen):
    """Distance between two sets of lesions of one type in the features of one network."""

    lesion_type: str
    compared: str = Field(description="for example 'real against synthetic' or 'real against real'")
    network: str
    layer: str
    dimension: int
    num_real: int
    num_synthetic: int
    fid: Estimate
    kid: Estimate


class IntensityRow(Frozen):
    """Mean HU inside lesions of one type against the real ones."""

    lesion_type: str
    compared: str = Field(description="'autoencoded' or 'synthetic'")
    num_real: int
    num_compared: int
    real_mean_hu: float
    compared_mean_hu: float
    bias_hu: float
    relative_bias: float | None = Field(description="bias over |real mean|; None where the real mean is 0 HU")
    tolerance_hu: float = Field(description="25 % of the real mean or 30 HU, whichever is more")
    is_within_tolerance: bool


class PromptRow(Frozen):
    """Mean HU inside the same masks in the same surroundings under one prompt."""

    prompt: str
    mean_hu: float
    std_hu: float
    real_mean_hu: float | None = Field(default=None, description="mean of the real lesions of that type")
    is_within_tolerance: bool | None = None


class PromptPair(Frozen):
    """How well two prompts separate by the lesions' mean HU."""

    first: str
    second: str
    auc: float = Field(ge=0, le=1, description="probability that `second` is the brighter; 0 or 1: separate")


class PromptSwitch(Frozen):
    """Only the prompt was switched; masks, surroundings and noise stayed the same."""

    encoder: str = Field(description="prompt encoder, 'one-hot' or 'mask transformer'")
    num_lesions: int
    rows: tuple[PromptRow, ...]
    pairs: tuple[PromptPair, ...]
