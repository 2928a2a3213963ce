"""Scale, clipping, and that the autoencoder can learn."""

import pytest
import torch

from promptlesion.autoencoder.autoencoder import Autoencoder, build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.loss import weighted_l1


@pytest.fixture
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(widths=(4, 8, 8), latent_channels=3, codebook_size=64, patch_voxels=16)
    return build_autoencoder(config)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 1, 16, 12, 20, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_have_unit_variance_once_the_scale_is_measured(autoencoder: Autoencoder, image: torch.Tensor) -> None:
    autoencoder.set_latent_scale(autoencoder.encoder(image))
    channels = autoencoder.encode(image).detach().movedim(1, 0).flatten(1)
    torch.testing.assert_close(channels.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(channels.std(dim=1), torch.ones(3), rtol=1e-4, atol=0)


def test_decode_undoes_the_scale_of_encode(autoencoder: Autoencoder, image: torch.Tensor) -> None:
    autoencoder.reconstruct(image, torch.Generator())  # fills the codebook
    autoencoder.eval()
    plain, _ = autoencoder.reconstruct(image)
    autoencoder.set_latent_scale(3 * autoencoder.encoder(image) + 0.5)
    assert autoencoder.latent_mean.abs().min() > 0.01
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(image)), plain.clamp(-1, 1), rtol=1e-4, atol=1e-5)


def test_a_constant_channel_does_not_divide_by_zero(autoencoder: Autoencoder) -> None:
    autoencoder.set_latent_scale(torch.ones(2, 3, 4, 3, 5))
    assert autoencoder.latent_std.min() > 0


def test_decode_stays_within_the_window(autoencoder: Autoencoder, image: torch.Tensor) -> None:
    autoencoder.reconstruct(image, torch.Generator())
    autoencoder.eval()
    with torch.no_grad():
        for parameter in autoencoder.decoder.parameters():
            parameter.mul_(5.0)
    latent = autoencoder.encode(image)
    assert autoencoder.decoder(latent).abs().max() > 1
    assert autoencoder.decode(latent).abs().max() == 1


def test_gradients_reach_every_parameter(autoencoder: Autoencoder, image: torch.Tensor) -> None:
    with torch.no_grad():
        for parameter in autoencoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # the last convolution of a block starts at zero
    reconstruction, quantized = autoencoder.reconstruct(image, torch.Generator())
    assert reconstruction.shape == image.shape
    assert quantized.codes.shape == (3, 4, 3, 5)
    (reconstruction.square().mean() + quantized.commitment).backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_without_quantization_the_codebook_is_left_alone(autoencoder: Autoencoder, image: torch.Tensor) -> None:
    reconstruction, _ = autoencoder.reconstruct(image, is_quantized=False)
    torch.testing.assert_close(reconstruction, autoencoder.decoder(autoencoder.encoder(image)))
    assert not bool(autoencoder.quantizer.is_initialized)


def test_one_batch_is_overfitted(autoencoder: Autoencoder) -> None:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(2, 1, 4, 3, 5, generator=generator) * 1.6 - 0.8
    image = torch.nn.functional.interpolate(coarse, scale_factor=4.0, mode="trilinear")
    nowhere = torch.zeros(image.shape, dtype=torch.bool)
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        reconstruction, quantized = autoencoder.reconstruct(image, generator)
        l1 = weighted_l1(reconstruction, image, nowhere, lesion_weight=1.0)
        optimizer.zero_grad()
        (l1 + 0.25 * quantized.commitment).backward()
        optimizer.step()
        losses.append(l1.item())
    assert min(losses[-10:]) < 0.35 * losses[0]
