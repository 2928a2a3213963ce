"""The VQGAN as the other stages see it: CT patch to unit-variance latent and back."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.network import build_decoder, build_encoder
from promptlesion.autoencoder.quantizer import Quantized, VectorQuantizer, unquantized
from promptlesion.training.checkpoint import load_checkpoint
from promptlesion.training.device import place


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
        raw = latent.float() * _per_channel(self.latent_std) + _per_channel(self.latent_mean)
        decoded: Tensor = self.decoder(self.quantizer(raw).latent)
        return decoded.float().clamp(-1, 1)

    @torch.no_grad()
    def set_latent_scale(self, raw: Float[Tensor, "batch channel u v w"]) -> None:
        """Measure the scale of the latents on encoder outputs of training patches."""
        channels = raw.float().movedim(1, 0).flatten(1)
        self.latent_mean.copy_(channels.mean(dim=1))
        self.latent_std.copy_(channels.std(dim=1).clamp_min(1e-6))


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


def load_autoencoder(run_folder: Path, device: torch.device) -> TrainedAutoencoder:
    """Read a finished run of stage 1, frozen and in evaluation mode.

    Raises:
        CheckpointError: the run is not finished, damaged, or of another stage.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage="autoencoder")
    config = AutoencoderConfig.model_validate(checkpoint.card["config"])
    network = build_autoencoder(config)
    network.load_state_dict(checkpoint.part("autoencoder"))
    place(network.requires_grad_(requires_grad=False).eval(), device)
    return TrainedAutoencoder(network, config, checkpoint.card)
