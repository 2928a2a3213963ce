"""The course of the learning rate over a run."""

import math
from typing import Literal

from torch.optim import Optimizer

Decay = Literal["none", "cosine"]


def set_learning_rate(optimizer: Optimizer, *, start: float, step: int, num_steps: int, decay: Decay) -> None:
    """Set the rate of one step: constant, or start * (1 + cos(pi * step / num_steps)) / 2.

    The latter is that of Loshchilov and Hutter 2017, without restarts. A function of the step alone, so that
    a resumed run goes on as if it had never stopped.
    """
    rate = start if decay == "none" else start * 0.5 * (1 + math.cos(math.pi * step / num_steps))
    for group in optimizer.param_groups:
        group["lr"] = rate
