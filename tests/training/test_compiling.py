"""A network that cannot be built says so and runs as it is; auto leaves the CPU alone."""

import logging

import pytest
import torch
from torch import nn

from promptlesion.training.compiling import compile_network
from promptlesion.training.hardware import HardwareConfig

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's own compiler


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))


def test_auto_and_off_build_nothing_on_a_cpu() -> None:
    tried: list[bool] = []
    for choice in (HardwareConfig().compile, "off"):
        assert not compile_network(network(), choice=choice, device=CPU, trial=lambda: tried.append(True))
    assert tried == []


def test_a_failure_is_said_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    plain, values = network(), torch.rand(5, 3)
    expected = plain(values)

    def fail() -> None:
        raise RuntimeError("no C++ compiler\nat all")

    with caplog.at_level(logging.WARNING):
        assert not compile_network(plain, choice="on", device=CPU, trial=fail)
    assert "cannot build the Sequential (no C++ compiler)" in caplog.text
    assert torch.equal(plain(values), expected)


@pytest.mark.slow
def test_a_built_network_has_the_same_names_and_gives_the_same(caplog: pytest.LogCaptureFixture) -> None:
    plain, built, values = network(), network(), torch.rand(5, 3)
    names = list(built.state_dict())
    is_built = compile_network(
        built, choice="on", device=CPU, trial=lambda: torch.autograd.grad(built(values).sum(), list(built.parameters()))
    )
    assert is_built or "cannot build" in caplog.text
    assert list(built.state_dict()) == names
    torch.testing.assert_close(built(values), plain(values), rtol=1e-5, atol=1e-6)
