"""Encoder and decoder: a resolution a width, on any size that divides."""

import pytest
import torch

from promptlesion.autoencoder.network import ResidualBlock, build_decoder, build_encoder, group_norm


@pytest.mark.parametrize(("widths", "factor"), [((4, 8), 2), ((4, 8, 16), 4), ((8, 8, 8, 8), 8)])
def test_each_further_width_halves_the_resolution(widths: tuple[int, ...], factor: int) -> None:
    encoder = build_encoder(widths=widths, blocks_per_level=1, latent_channels=3)
    decoder = build_decoder(widths=widths, blocks_per_level=1, latent_channels=3)
    image = torch.randn(2, 1, 8, 24, 16)
    latent = encoder(image)
    assert latent.shape == (2, 3, 8 // factor, 24 // factor, 16 // factor)
    assert decoder(latent).shape == image.shape


def test_the_papers_autoencoder_makes_24_voxels_of_96() -> None:
    with torch.device("meta"):
        encoder = build_encoder(widths=(16, 32, 64), blocks_per_level=1, latent_channels=8)
        assert encoder(torch.empty(1, 1, 96, 96, 96)).shape == (1, 8, 24, 24, 24)


def test_a_residual_block_without_its_last_convolution_is_its_shortcut() -> None:
    features = torch.randn(2, 8, 3, 4, 5)
    for out_channels in (8, 4):
        block = ResidualBlock(in_channels=8, out_channels=out_channels)
        torch.nn.init.zeros_(block.second[2].weight)
        torch.nn.init.zeros_(block.second[2].bias)
        torch.testing.assert_close(block(features), block.shortcut(features))


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (8, 1), (16, 2), (64, 8)])
def test_a_group_has_about_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups
