"""One discriminator sees 3-D patches, one sees 2-D slices of all three axes; hinge losses for both."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.training.launch import all_reduced_sum, num_processes

_MAX_ADAPTIVE_WEIGHT = 1e4
_SMALLEST_GRADIENT = 1e-6


class Discriminators(nn.Module):
    """The volume and the slice discriminator side by side."""

    def __init__(self, *, channels: int, num_layers: int) -> None:
        """Build both with instance norm, which does not mix the patches of a batch."""
        super().__init__()
        self.volume = _patch_discriminator(3, channels, num_layers)
        self.slices = _patch_discriminator(2, channels, num_layers)

    def forward(
        self, volume: Float[Tensor, "batch 1 x y z"], slices: Float[Tensor, "slice 1 height width"]
    ) -> list[list[Tensor]]:
        """Return every feature map of both, the logits last."""
        return [self.volume(volume), self.slices(slices)]


def build_discriminators(config: AutoencoderConfig) -> Discriminators:
    """Build the discriminators of a configuration, untrained."""
    return Discriminators(channels=config.discriminator_channels, num_layers=config.discriminator_layers)


def _patch_discriminator(spatial_dims: int, channels: int, num_layers: int) -> nn.Module:
    network: nn.Module = PatchDiscriminator(
        spatial_dims=spatial_dims,
        channels=channels,
        in_channels=1,
        out_channels=1,
        num_layers_d=num_layers,
        norm="INSTANCE",
    )
    return network


def axis_slices(
    volume: Float[Tensor, "batch 1 x x x"], positions: Sequence[Sequence[int]]
) -> Float[Tensor, "slice 1 x x"]:
    """Cut slices out of cubic patches: `positions[axis]` along each of the three axes."""
    cuts = [volume.select(2 + axis, position) for axis, along in enumerate(positions) for position in along]
    return torch.cat(cuts)


def discriminator_loss(real: list[list[Tensor]], generated: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the hinge loss, the mean of both discriminators."""
    losses = [
        0.5 * (F.relu(1 - on_real[-1].float()).mean() + F.relu(1 + on_generated[-1].float()).mean())
        for on_real, on_generated in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(generated: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the generator's hinge loss, summed over both discriminators."""
    return torch.stack([-maps[-1].float().mean() for maps in generated]).sum()


def feature_matching_loss(real: list[list[Tensor]], generated: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Return the mean absolute difference of the feature maps of both, the logits left out."""
    losses = [
        F.l1_loss(map_generated.float(), map_real.detach().float())
        for on_real, on_generated in zip(real, generated, strict=True)
        for map_real, map_generated in zip(on_real[:-1], on_generated[:-1], strict=True)
    ]
    return torch.stack(losses).mean()


def adaptive_weight(
    reconstruction: Float[Tensor, ""], fooling: Float[Tensor, ""], last_layer: Float[Tensor, "..."]
) -> Float[Tensor, ""]:
    """Return the weight at which fooling pulls as hard as the reconstruction (Esser et al. 2021, eq. 7).

    It is the ratio of the norms of both gradients at the decoder's last layer, over all processes together, at most
    1e4; no gradient flows through it. `reconstruction` and `fooling` keep their graphs.
    """
    norms: list[Tensor] = []
    for loss in (reconstruction, fooling):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        norms.append((all_reduced_sum(gradient.float()) / num_processes()).norm())
    return (norms[0] / (norms[1] + _SMALLEST_GRADIENT)).clamp_max(_MAX_ADAPTIVE_WEIGHT)
