"""The learning rate is a function of the step."""

import math

import pytest
import torch
from torch import nn

from promptlesion.training.learning_rate import set_learning_rate


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    return torch.optim.Adam([{"params": layer.parameters()} for layer in layers], lr=9.0)


def test_without_decay_it_stays(optimizer: torch.optim.Optimizer) -> None:
    for step in (0, 3, 9):
        set_learning_rate(optimizer, start=0.5, step=step, num_steps=10, decay="none")
        assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_cosine_falls_from_the_start_over_its_half_to_nearly_nothing(
    optimizer: torch.optim.Optimizer,
) -> None:
    rates = []
    for step in range(100):
        set_learning_rate(optimizer, start=0.5, step=step, num_steps=100, decay="cosine")
        rates.append(optimizer.param_groups[1]["lr"])
    assert rates[0] == 0.5
    assert rates == pytest.approx([0.5 * math.cos(math.pi * step / 200) ** 2 for step in range(100)])
    assert rates[50] == pytest.approx(0.25)
    assert 0 < rates[-1] < 1e-3
    assert rates == sorted(rates, reverse=True)
