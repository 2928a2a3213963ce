import pytest
import torch

from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.network import build_segmentation_network


@pytest.mark.parametrize("residual_units", [0, 2])
def test_scores_have_one_channel_a_label_and_the_patchs_size(residual_units: int) -> None:
    config = SegmentationConfig(channels=(4, 8, 12), residual_units=residual_units)
    network = build_segmentation_network(config, num_labels=5)
    assert network(torch.zeros(2, 1, 16, 24, 8)).shape == (2, 5, 16, 24, 8)


def test_every_parameter_learns() -> None:
    config = SegmentationConfig(channels=(4, 8, 12), residual_units=1)
    network = build_segmentation_network(config, num_labels=3)
    torch.manual_seed(0)
    network(torch.randn(2, 1, 16, 16, 16)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
