"""Encoder and decoder: a resolution a width, on any size that divides."""

import pytest
import torch

from promptlesion.autoencoder.network import ResidualBlock, build_decoder, build_encoder


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


def test_a_residual_block_starts_as_its_shortcut() -> None:
    """But for the bias of its last convolution, the same for every voxel."""
    features = torch.randn(2, 8, 3, 4, 5)
    for out_channels in (8, 4):
        block = ResidualBlock(in_channels=8, out_channels=out_channels)
        added = block(features) - block.shortcut(features)
        assert added.movedim(1, 0).flatten(1).std(dim=1).max() < 1e-6


def test_a_patch_is_autoencoded_alike_whatever_lies_beyond_the_receptive_field() -> None:
    """No statistics over space: the middle of a patch does not know how large the patch is."""
    torch.manual_seed(0)
    encoder = build_encoder(widths=(4, 8), blocks_per_level=1, latent_channels=3)
    decoder = build_decoder(widths=(4, 8), blocks_per_level=1, latent_channels=3)
    large = torch.randn(1, 1, 64, 50, 58)
    other = 5 * torch.randn_like(large) + 3
    start, size, reach = (8, 4, 6), (44, 46, 48), 20
    patch = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    other[:, :, *patch] = large[:, :, *patch]
    inside = (slice(None), slice(None), *(slice(reach, n - reach) for n in size))
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))  # the blocks start as nothing
    alone = decoder(encoder(large[:, :, *patch]))[inside]
    assert alone.std() > 1e-3
    for volume in (large, other):
        torch.testing.assert_close(decoder(encoder(volume))[:, :, *patch][inside], alone, rtol=1e-5, atol=1e-6)
