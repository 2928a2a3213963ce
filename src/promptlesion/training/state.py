"""Everything a training run needs to go on where it stopped, in one file."""

from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn
from torch.optim import Optimizer

from promptlesion.training.atomic import written_whole
from promptlesion.training.checkpoint import CheckpointError, load_weights


@dataclass
class TrainState:
    """Networks, optimisers and counters of a run after `step` steps.

    An exponential moving average or the best weights so far are networks like any other here. Random state is
    not kept: every draw comes from a generator derived from (seed, step).
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    counters: dict[str, float] = field(default_factory=dict)
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the state whole or not at all."""
        content = {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "counters": dict(self.counters),
            "step": self.step,
        }
        with written_whole(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        """Take over a saved state; networks and optimisers must be built alike.

        Raises:
            CheckpointError: a damaged file, one that holds more than tensors and figures, or other networks.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected the state of a training; found a file that is damaged or none of ours. "
                "Remove it to start anew"
            ) from error
        for name, network in self.networks.items():
            load_weights(network, content["networks"][name], source=path)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        self.counters = dict(content["counters"])
        self.step = int(content["step"])
