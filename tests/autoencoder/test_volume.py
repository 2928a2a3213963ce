"""Tiles give what the undivided network gives: at seams, at borders, on every size."""

import pytest
import torch
from torch import Tensor, nn

from promptlesion.autoencoder.autoencoder import Autoencoder
from promptlesion.autoencoder.volume import decode_volume, encode_volume, input_range, pad_to_multiple


def shaken(widths: tuple[int, ...], blocks_per_level: int = 1) -> Autoencoder:
    """An autoencoder in which every layer does something, with a scale and a codebook."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(
        widths=widths,
        blocks_per_level=blocks_per_level,
        latent_channels=3,
        codebook_size=32,
        codebook_decay=0.9,
        dead_code_usage=0.1,
    )
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # the residual blocks start as nothing
    raw = autoencoder.encoder(noise(1, 1, 16, 16, 32))
    autoencoder.set_latent_scale(2 * raw + 0.3)
    autoencoder.quantizer(raw, torch.Generator())
    return autoencoder.eval().requires_grad_(requires_grad=False)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    return shaken((4, 6, 8))


@pytest.mark.parametrize("tile_voxels", [20, 64, 400])
def test_tiles_are_encoded_and_decoded_as_the_whole(autoencoder: Autoencoder, tile_voxels: int) -> None:
    """At seams, and at the ends, where the layers' padding is the same."""
    image = noise(1, 1, 92, 28, 36)
    whole = autoencoder.encode(image)
    latent = encode_volume(autoencoder, image, tile_voxels=tile_voxels, precision="float32")
    torch.testing.assert_close(latent, whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(autoencoder.codes(latent), autoencoder.codes(whole))
    decoded = decode_volume(autoencoder, whole, size=(92, 28, 36), tile_voxels=tile_voxels, precision="float32")
    expected = autoencoder.decode(whole)
    assert expected.std() > 0.05
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("widths", "blocks_per_level"), [((4, 6), 1), ((4, 4), 2), ((4, 4, 4, 4), 1)])
def test_the_margin_follows_the_layers(widths: tuple[int, ...], blocks_per_level: int) -> None:
    autoencoder = shaken(widths, blocks_per_level)
    image = noise(1, 1, 80, 16, 24)
    latent = encode_volume(autoencoder, image, tile_voxels=16, precision="float32")
    torch.testing.assert_close(latent, autoencoder.encode(image), rtol=1e-4, atol=1e-5)
    decoded = decode_volume(autoencoder, latent, size=(80, 16, 24), tile_voxels=16, precision="float32")
    torch.testing.assert_close(decoded, autoencoder.decode(latent), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(37, 22, 41), (3, 9, 4), (40, 40, 41)])
def test_any_size_comes_back(autoencoder: Autoencoder, size: tuple[int, int, int]) -> None:
    image = noise(1, 1, *size)
    padded = torch.nn.functional.pad(image, [p for n in reversed(size) for p in (0, -n % 4)], mode="replicate")
    latent = encode_volume(autoencoder, image, tile_voxels=16, precision="float32")
    torch.testing.assert_close(latent, autoencoder.encode(padded), rtol=1e-4, atol=1e-5)
    decoded = decode_volume(autoencoder, latent, size=size, tile_voxels=16, precision="float32")
    assert decoded.shape == image.shape
    x, y, z = size
    torch.testing.assert_close(decoded, autoencoder.decode(latent)[:, :, :x, :y, :z], rtol=1e-4, atol=1e-5)


def test_padding_repeats_the_last_voxels() -> None:
    image = noise(1, 1, 5, 4, 7)
    padded = pad_to_multiple(image, 4)
    assert padded.shape == (1, 1, 8, 4, 8)
    assert torch.equal(padded[:, :, :5, :, :7], image)
    assert torch.equal(padded[:, :, 5:, :, :7], image[:, :, -1:].expand(-1, -1, 3, -1, -1))
    assert torch.equal(padded[:, :, :5, :, 7:], image[..., -1:])


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_receptive_field_is_that_of_the_gradient(autoencoder: Autoencoder, part: str) -> None:
    """No wider than what the output depends on, and no narrower."""
    network = getattr(autoencoder, part)
    channels, length = (1, 96) if part == "encoder" else (3, 32)
    source = noise(1, channels, length, 8, 8).requires_grad_()
    output = network(source)
    at = output.shape[2] // 2
    (gradient,) = torch.autograd.grad(output[:, :, at].abs().sum(), source)
    reached = gradient.abs().amax(dim=(0, 1, 3, 4)).nonzero().flatten().tolist()
    assert input_range(network, at, at + 1) == (reached[0], reached[-1] + 1)


def test_the_margin_of_the_papers_autoencoder() -> None:
    """A tile of 96 voxels is encoded from about 20 more on every side, decoded from 6 more latent voxels."""
    with torch.device("meta"):
        paper = Autoencoder(
            widths=(16, 32, 64),
            blocks_per_level=1,
            latent_channels=8,
            codebook_size=16,
            codebook_decay=0.9,
            dead_code_usage=0.1,
        )
    low, high = input_range(paper.encoder, 24, 48)
    assert (96 - low, high - 192) == (18, 18)
    low, high = input_range(paper.decoder, 96, 192)
    assert (24 - low, high - 48) == (6, 6)


def test_one_tile_at_a_time_is_in_memory(autoencoder: Autoencoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[list[int]] = []
    encode = autoencoder.encode

    def spied(image: Tensor) -> Tensor:
        sizes.append(list(image.shape[2:]))
        return encode(image)

    monkeypatch.setattr(autoencoder, "encode", spied)
    encode_volume(autoencoder, noise(1, 1, 120, 20, 24), tile_voxels=16, precision="float32")
    assert max(max(size) for size in sizes) <= 16 + 2 * 20
    assert len(sizes) == 32


def test_what_does_not_fit_is_refused(autoencoder: Autoencoder) -> None:
    with pytest.raises(ValueError, match=r"tile_voxels: expected a multiple of 4, the downsampling; found 6"):
        encode_volume(autoencoder, noise(1, 1, 8, 8, 8), tile_voxels=6, precision="float32")
    with pytest.raises(ValueError, match=r"size: expected sides that 4 divides into \[2, 3, 2\]; found \(8, 8, 8\)"):
        decode_volume(autoencoder, noise(1, 3, 2, 3, 2), size=(8, 8, 8), tile_voxels=8, precision="float32")
    with pytest.raises(TypeError, match=r"receptive field: expected a layer of the autoencoder; found GroupNorm"):
        input_range([nn.GroupNorm(1, 4)], 0, 4)
