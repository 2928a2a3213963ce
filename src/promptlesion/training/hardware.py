"""How the machine is used: what changes speed and memory, and results by rounding at most. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Choice = Literal["auto", "on", "off"]


class HardwareConfig(BaseModel):
    """What only concerns the machine; a run is the same run whatever stands here, and may be taken up with another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    activation_checkpointing: Choice = Field(
        "auto",
        description="compute activations again in the backward pass of a training instead of keeping them: up to "
        "a third more time for up to a third less memory; auto: where a step does not fit into the memory otherwise",
    )
    compile: Choice = Field(
        "auto",
        description="record the sampler's step as a CUDA graph, and let torch.compile build the networks in training, "
        "stage 1's excepted; where that fails they run as they are, and say so; auto: on a CUDA device",
    )
    prefetch_batches: int = Field(
        2, ge=0, description="batches of patches that a thread draws ahead of the training; 0 draws each when it is due"
    )


DEFAULT_HARDWARE = HardwareConfig()
