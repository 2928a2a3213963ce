"""The VQGAN as the other stages see it: CT patch to unit-variance latent and back."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.network import build_decoder, build_encoder
from promptlesion.autoencoder.quantizer import Quantized, VectorQuantizer, unquantized
from promptlesion.data.spec import DatasetSpec
from promptlesion.training.checkpoint import differences, load_checkpoint


class Autoencoder(nn.Module):
    """Encoder, quantizer and decoder; the only place that knows the scale of the latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        *,
        widths: tuple[int, ...],
        blocks_per_level: int,
        latent_channels: int,
        codebook_size: int,
        codebook_decay: float,
        dead_code_usage: float,
    ) -> None:
        """Build the three networks; the latent's statistics are those of no data yet."""
        super().__init__()
        self.encoder = build_encoder(widths=widths, blocks_per_level=blocks_per_level, latent_channels=latent_channels)
        self.quantizer = VectorQuantizer(
            codebook_size=codebook_size,
            dimension=latent_channels,
            decay=codebook_decay,
            dead_code_usage=dead_code_usage,
        )
        self.decoder = build_decoder(widths=widths, blocks_per_level=blocks_per_level, latent_channels=latent_channels)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        self.latent_channels = latent_channels
        self.downsampling = 2 ** (len(widths) - 1)

    @property
    def last_weight(self) -> Float[Tensor, "1 channel _ _ _"]:
        """Weight of the decoder's last convolution, where the adaptive adversarial weight compares gradients."""
        last = self.decoder[-1]
        assert isinstance(last, nn.Conv3d)
        return last.weight

    def reconstruct(
        self,
        image: Float[Tensor, "batch 1 x y z"],
        generator: torch.Generator | None = None,
        *,
        is_quantized: bool = True,
    ) -> tuple[Float[Tensor, "batch 1 x y z"], Quantized]:
        """Encode, quantize (unless training is not that far yet) and decode a normalised patch."""
        raw: Tensor = self.encoder(image)
        quantized = self.quantizer(raw, generator) if is_quantized else unquantized(raw)
        reconstruction: Tensor = self.decoder(quantized.latent)
        return reconstruction, quantized

    def encode(self, image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch channel u v w"]:
        """Return the latent before quantization, with unit variance per channel over the training set."""
        raw: Tensor = self.encoder(image)
        return (raw.float() - _per_channel(self.latent_mean)) / _per_channel(self.latent_std)

    def decode(self, latent: Float[Tensor, "batch channel u v w"]) -> Float[Tensor, "batch 1 x y z"]:
        """Return the normalised patch of a latent: undo the scale, quantize, decode, clip to [-1, 1]."""
        decoded: Tensor = self.decoder(self._quantize(latent).latent)
        return decoded.float().clamp(-1, 1)

    def codes(self, latent: Float[Tensor, "batch channel u v w"]) -> Int[Tensor, "batch u v w"]:
        """Return the index of the code that `decode` puts in every place of a latent."""
        return self._quantize(latent).codes

    def _quantize(self, latent: Float[Tensor, "batch channel u v w"]) -> Quantized:
        raw = latent.float() * _per_channel(self.latent_std) + _per_channel(self.latent_mean)
        quantized: Quantized = self.quantizer(raw)
        return quantized

    @torch.no_grad()
    def set_latent_scale(self, raw: Float[Tensor, "batch channel u v w"]) -> None:
        """Measure the scale of the latents on encoder outputs of training patches."""
        channels = raw.float().movedim(1, 0).flatten(1)
        self.latent_mean.copy_(channels.mean(dim=1))
        self.latent_std.copy_(channels.std(dim=1).clamp_min(1e-6))

    def latent_scale(self) -> dict[str, list[float]]:
        """Return mean and standard deviation of every channel of the unscaled latent, for a checkpoint's card."""
        return {"mean": self.latent_mean.tolist(), "std": self.latent_std.tolist()}


def _per_channel(values: Float[Tensor, " channel"]) -> Float[Tensor, "1 channel 1 1 1"]:
    return values.view(1, -1, 1, 1, 1)


def build_autoencoder(config: AutoencoderConfig) -> Autoencoder:
    """Build the networks of a configuration, untrained."""
    return Autoencoder(
        widths=config.widths,
        blocks_per_level=config.blocks_per_level,
        latent_channels=config.latent_channels,
        codebook_size=config.codebook_size,
        codebook_decay=config.codebook_decay,
        dead_code_usage=config.dead_code_usage,
    )


@dataclass(frozen=True)
class TrainedAutoencoder:
    """A finished stage 1: the networks, their configuration, and the card of the checkpoint."""

    network: Autoencoder
    config: AutoencoderConfig
    card: dict[str, object]

    @property
    def spec(self) -> DatasetSpec:
        """Window, spacing and lesion types of the dataset it was trained on."""
        return DatasetSpec.model_validate(self.card["dataset"])


def check_dataset(trained: TrainedAutoencoder, spec: DatasetSpec, *, run_folder: Path) -> None:
    """Refuse a dataset whose scans mean something else to the autoencoder; it may have other lesion types.

    Raises:
        ValueError: window or spacing differ from those it was trained with.
    """
    expected = {name: value for name, value in spec.facts().items() if name != "lesion_types"}
    others = differences(trained.spec.facts(), expected)
    if others:
        raise ValueError(
            f"{run_folder}: expected an autoencoder for scans like the dataset's; found one with other "
            + "; ".join(others)
        )


def load_autoencoder(run_folder: Path, device: torch.device) -> TrainedAutoencoder:
    """Read a finished run of stage 1, frozen and in evaluation mode.

    Raises:
        CheckpointError: the run is not finished, damaged, of another stage or of other networks.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage="autoencoder")
    config = AutoencoderConfig.model_validate(checkpoint.card["config"])
    network = build_autoencoder(config)
    checkpoint.restore(network, part="autoencoder", device=device)
    return TrainedAutoencoder(network, config, checkpoint.card)
