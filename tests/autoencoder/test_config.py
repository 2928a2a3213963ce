"""The settings of stage 1 are the paper's unless said otherwise, and refuse what cannot work."""

import pytest
from pydantic import ValidationError

from promptlesion.autoencoder.config import AutoencoderConfig


def test_the_defaults_are_the_papers() -> None:
    config = AutoencoderConfig()
    assert (config.patch_voxels, config.downsampling, config.latent_channels) == (96, 4, 8)
    assert (config.codebook_size, config.num_epochs, config.batch_size) == (16384, 1000, 4)
    assert (config.learning_rate, config.adam_betas) == (3e-4, (0.9, 0.999))


def test_discriminators_that_never_start_are_refused() -> None:
    with pytest.raises(
        ValidationError,
        match=r"adversarial_start_epoch: expected less than num_epochs \(5\).*found 5\. Set",
    ):
        AutoencoderConfig(num_epochs=5, adversarial_start_epoch=5)
    assert AutoencoderConfig(num_epochs=5, adversarial_start_epoch=4).num_epochs == 5
    assert AutoencoderConfig(num_epochs=5, adversarial_start_epoch=9, adversarial_weight=0).num_epochs == 5


def test_a_codebook_that_never_comes_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"quantizer_start_epoch: expected less than num_epochs \(5\)"):
        AutoencoderConfig(num_epochs=5, adversarial_start_epoch=1, quantizer_start_epoch=5)


def test_a_patch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"patch_voxels: expected a multiple of 16.*found 24"):
        AutoencoderConfig(patch_voxels=24, widths=(8, 8, 8, 8, 8))


def test_medicalnet_and_its_file_come_together() -> None:
    with pytest.raises(ValidationError, match=r"medicalnet_weights: expected the path of a Med.*found none"):
        AutoencoderConfig(perceptual_network="medicalnet")
    with pytest.raises(ValidationError, match=r"medicalnet_weights: expected none, as it has.*found 'a\.pth'"):
        AutoencoderConfig(medicalnet_weights="a.pth")
    assert AutoencoderConfig(perceptual_network="medicalnet", medicalnet_weights="a.pth").medicalnet_weights == "a.pth"


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="codebook_sise"):
        AutoencoderConfig.model_validate({"codebook_sise": 12})
