"""Small float32 maps of batch 1: the same numbers and gradients, without `slow_conv3d`."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from promptlesion.training.device import place
from promptlesion.training.onednn import OneDNNConv3d

CPU = torch.device("cpu")
SIZES = [((1, 6, 5, 4, 7), 3, 1), ((1, 6, 7, 8, 5), 1, 1), ((1, 6, 9, 5, 6), 3, 2), ((2, 6, 5, 4, 7), 3, 1)]


def convolutions(kernel: int, stride: int) -> tuple[nn.Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    plain = nn.Conv3d(6, 4, kernel, stride=stride, padding=kernel // 2)
    placed = place(copy.deepcopy(plain), CPU)
    assert isinstance(placed, OneDNNConv3d)
    return plain, placed


def operators(run: nn.Module, features: Tensor) -> set[str]:
    with torch.profiler.profile() as profiled:
        run(features).sum().backward()
    return {event.key for event in profiled.key_averages()}


@pytest.mark.parametrize(("shape", "kernel", "stride"), SIZES)
def test_results_and_gradients_are_the_plain_ones(shape: tuple[int, ...], kernel: int, stride: int) -> None:
    plain, placed = convolutions(kernel, stride)
    features = torch.randn(shape, requires_grad=True)
    expected, found = plain(features), placed(features)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(placed(features), expected)
    toward = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, [features, *plain.parameters()], toward)
    torch.testing.assert_close(torch.autograd.grad(found, [features, *placed.parameters()], toward), gradients)


def test_neither_forward_nor_backward_is_slow() -> None:
    plain, placed = convolutions(3, 1)
    features = torch.randn(1, 6, 5, 4, 7, requires_grad=True)
    assert [name for name in operators(plain, features) if "slow_conv" in name]
    assert not [name for name in operators(placed, features) if "slow_conv" in name]


@pytest.mark.parametrize("batch", [1, 8])
def test_a_convolution_of_single_voxels_on_one_thread_is_not_slow_either(batch: int) -> None:
    plain, placed = convolutions(1, 1)
    features = torch.randn(batch, 6, 16, 16, 16, requires_grad=True)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert [name for name in operators(plain, features) if "slow_conv" in name]
        assert not [name for name in operators(placed, features) if "slow_conv" in name]
        torch.testing.assert_close(placed(features), plain(features))
    finally:
        torch.set_num_threads(before)


def test_a_step_can_be_counted_without_numbers() -> None:
    _, placed = convolutions(3, 1)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert placed(torch.randn(1, 6, 5, 4, 7)).shape == (1, 4, 5, 4, 7)


def test_a_placed_convolution_keeps_names_and_values_and_can_be_copied() -> None:
    plain, placed = convolutions(3, 1)
    assert isinstance(copy.deepcopy(placed), OneDNNConv3d)
    assert place(placed, CPU) is placed
    assert list(placed.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(placed.state_dict())
    features = torch.randn(1, 6, 5, 4, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(placed(features), plain(features))


def test_reflected_padding_and_unbatched_features_stay_as_they_are() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate")
    features = torch.randn(1, 2, 4, 3, 5)
    torch.testing.assert_close(place(copy.deepcopy(plain), CPU)(features), plain(features))
    plain = nn.Conv3d(2, 3, 3, padding="same")
    torch.testing.assert_close(place(copy.deepcopy(plain), CPU)(features[0]), plain(features[0]))
