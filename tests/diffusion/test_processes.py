"""Stage 2 on two processes with half of the batch each follows the one with the whole batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.trained import trained

from promptlesion.data.cache import CachedCase
from promptlesion.data.spec import DatasetSpec
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.train import train_diffusion
from promptlesion.training.run import read_metrics

WEIGHTS = "checkpoint/weights.safetensors"


def test_two_processes_follow_one_and_go_on_where_they_were_killed(
    tiny_cases: list[CachedCase],
    tiny_spec: DatasetSpec,
    tiny_labels: dict[str, int],
    tiny_autoencoder_run: Path,
    tiny_diffusion_config: DiffusionConfig,
    one_and_two_processes: Callable[..., tuple[Path, Path]],
) -> None:
    """With prompts dropped, and with lesions of a weight that their share of the whole batch limits."""
    config = tiny_diffusion_config.model_copy(
        update={"num_steps": 12, "batch_size": 4, "lesion_weight": 1000.0, "prompt_dropout": 0.5}
    )
    train = partial(
        trained,
        train_diffusion,
        train_cases=tiny_cases[:3],
        spec=tiny_spec,
        labels=tiny_labels,
        autoencoder_run=tiny_autoencoder_run,
        config=config,
        seed=7,
        device="cpu",
    )
    one, two = one_and_two_processes(train, killed_after_steps=5)

    for line, expected_line in zip(read_metrics(two), read_metrics(one), strict=True):
        assert line == pytest.approx(expected_line, rel=1e-4)
    weights, expected = load_file(two / WEIGHTS), load_file(one / WEIGHTS)
    for name, tensor in expected.items():
        # Adam divides a gradient by its own size: where it is nearly zero, its rounding is worth up to a step
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=config.learning_rate, msg=name)
