import pytest
import torch

from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.network import build_segmentation_network


@pytest.mark.parametrize("residual_units", [0, 2])
def test_scores_have_one_channel_a_label_and_the_patchs_size(residual_units: int) -> None:
    config = SegmentationConfig(channels=(4, 8, 12), residual_units=residual_units)
    network = build_segmentation_network(config, num_labels=5)
    assert network(torch.zeros(2, 1, 16, 24, 8)).shape == (2, 5, 16, 24, 8)


def test_dynunet_scores_the_patch_and_in_training_coarser_ones_too() -> None:
    """Five resolutions of 48 voxels would be one too many: 6 voxels are not halved again."""
    config = SegmentationConfig(network="dynunet", patch_voxels=64, channels=(4, 4, 6, 6, 8))
    network = build_segmentation_network(config, num_labels=3, spacing_mm=(1.0, 1.2, 0.9))
    image = torch.zeros(1, 1, 64, 48, 32)
    assert [tuple(scores.shape) for scores in network.train()(image)] == [
        (1, 3, 64, 48, 32),
        (1, 3, 32, 24, 16),
        (1, 3, 16, 12, 8),
    ]
    assert network.eval()(image).shape == (1, 3, 64, 48, 32)


@pytest.mark.parametrize("name", ["unet", "dynunet"])
def test_every_parameter_learns(name: str) -> None:
    config = SegmentationConfig(network=name, patch_voxels=32, channels=(4, 6, 8, 8), residual_units=1)
    torch.manual_seed(0)
    network = build_segmentation_network(config, num_labels=3)
    scores = network.train()(torch.randn(2, 1, 32, 32, 32))
    sum(found.square().sum() for found in (scores if isinstance(scores, list) else [scores])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_unset_channels_are_the_u_nets_and_nnu_nets() -> None:
    unet, dynunet = (SegmentationConfig(network=name, patch_voxels=96) for name in ("unet", "dynunet"))
    assert unet.unet_channels == (32, 64, 128, 256)
    network = build_segmentation_network(dynunet, num_labels=2)
    norms = [module.num_features for module in network.descent.modules() if hasattr(module, "num_features")]
    assert sorted(set(norms)) == [32, 64, 128, 256, 320]


def test_more_channels_than_the_patch_has_resolutions_are_refused() -> None:
    config = SegmentationConfig(network="dynunet", patch_voxels=32, channels=(4, 4, 4, 4, 4))
    with pytest.raises(ValueError, match=r"segmentation.channels: expected at most 4, .* 32 voxels .*; found 5"):
        build_segmentation_network(config, num_labels=2)


@pytest.mark.parametrize("name", ["unet", "dynunet"])
def test_a_further_window_shows_what_the_wide_one_hides(name: str) -> None:
    """Two soft tissues 3 HU apart: 0.004 in a window of 1500 HU, 0.06 in one of 100."""
    config = SegmentationConfig(network=name, patch_voxels=32, channels=(4, 6, 8), extra_windows_hu=((0.0, 100.0),))
    network = build_segmentation_network(config, num_labels=3, window_hu=(-200.0, 1300.0)).eval()
    seen: list[torch.Tensor] = []
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hu = torch.full((1, 1, 32, 32, 32), 50.0)
    hu[..., :16] = 53.0
    hu[..., 0] = 900.0
    network((hu + 200) / 750 - 1)
    torch.testing.assert_close(
        seen[0][0, :, 0, 0, [0, 1, 31]], torch.tensor([[0.4667, -0.6627, -0.6667], [1, 0.06, 0]]), atol=1e-4, rtol=0
    )


def test_nnu_net_itself_takes_no_further_window() -> None:
    with pytest.raises(ValueError, match=r"extra_windows_hu: expected none for nnunetv2, .*; found 1"):
        SegmentationConfig(network="nnunetv2", extra_windows_hu=((0.0, 100.0),))
