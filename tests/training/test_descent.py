"""The learning rate is a function of the step; the moving average has a closed form."""

import math

import pytest
import torch
from torch import nn

from promptlesion.training.descent import averaged_copy, set_learning_rate, update_average


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


def test_average_follows_the_recursion() -> None:
    network = nn.Linear(3, 2)
    average = averaged_copy(network)
    expected = network.weight.detach().double().clone()
    for step in range(40):
        with torch.no_grad():
            network.weight.copy_(torch.full((2, 3), float(step)))
        update_average(average, network, decay=0.7, step=step)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert isinstance(average, nn.Linear)
    torch.testing.assert_close(average.weight.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_constant_network_is_its_own_average_and_the_start_is_forgotten() -> None:
    network = nn.Linear(3, 2)
    average = averaged_copy(network)
    assert isinstance(average, nn.Linear)
    with torch.no_grad():
        network.weight.add_(100.0)
    for step in range(400):
        update_average(average, network, decay=0.999, step=step)
    # the product of (1 + k) / (10 + k) over 400 steps is below 1e-12
    torch.testing.assert_close(average.weight, network.weight, rtol=1e-6, atol=1e-5)


def test_the_average_is_frozen_apart_and_shares_nothing() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    average = averaged_copy(network)
    assert not average.training
    assert network.training
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network[0].weight.zero_()
    assert average[0].weight.abs().sum() > 0


def test_buffers_are_copied() -> None:
    network = nn.BatchNorm3d(4)
    average = averaged_copy(network)
    network(torch.randn(2, 4, 3, 5, 2, generator=torch.Generator().manual_seed(0)))
    update_average(average, network, decay=0.9, step=0)
    for name, buffer in network.named_buffers():
        assert torch.equal(average.get_buffer(name), buffer)


@pytest.mark.parametrize("step", [0, 10_000])
def test_the_decay_never_exceeds_the_asked_for(step: int) -> None:
    network, start = nn.Linear(1, 1, bias=False), 5.0
    nn.init.constant_(network.weight, start)
    average = averaged_copy(network)
    assert isinstance(average, nn.Linear)
    nn.init.zeros_(network.weight)
    update_average(average, network, decay=0.8, step=step)
    assert average.weight.item() == pytest.approx(start * min(0.8, (1 + step) / (10 + step)))
