"""The moving average has a closed form."""

import pytest
import torch
from torch import nn

from promptlesion.training.ema import averaged_copy, update_average


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
