"""A U-Net made ready for many steps over the same batch: whatever the noisy latents do not change is computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from promptlesion.diffusion.network import PromptUNet
from promptlesion.training.device import place


@dataclass(frozen=True)
class BoundNetwork:
    """A network with what it is told beside the noisy latents, and the levels it will be asked about."""

    network: PromptUNet
    noisy_inlet: nn.Conv3d
    """The noisy latents' share of the first convolution."""
    known_share: Float[Tensor, "batch channel x y z"]
    """What the first convolution makes of all other channels."""
    modulations: Mapping[int, Float[Tensor, "1 modulation"]]
    """What the residual blocks make of every level."""
    embedding: Float[Tensor, "prompt embedding 1 1 1"] | None
    """One prompt per sample, or several; see `PromptUNet.predict`."""

    @torch.no_grad()
    def __call__(
        self, noisy: Float[Tensor, "batch noisy_channel x y z"], level: int
    ) -> Float[Tensor, "prompt_or_batch out_channels x y z"]:
        """Return the prediction at one of the levels, under the autocast the network was bound under."""
        features = self.noisy_inlet(noisy) + self.known_share
        return self.network.predict(features, self.modulations[level], self.embedding)


def cast_weights(network: PromptUNet, dtype: torch.dtype) -> PromptUNet:
    """Cast the weights that autocast would cast at every step, bit for bit as it would; it is then only for sampling.

    Norms and prompt components keep their precision. What has bfloat16 weights computes under autocast alone.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.to(dtype)
    return network


@torch.no_grad()
def bind_network(
    network: PromptUNet,
    known: Float[Tensor, "batch known_channel x y z"],
    levels: Sequence[int],
    embedding: Float[Tensor, "prompt embedding 1 1 1"] | None,
) -> BoundNetwork:
    """Bind a network to the channels after the noisy ones, to levels and to prompts; under autocast, or without.

    Under autocast its weights are cast at every step, if they are not what `cast_weights` returns.
    """
    num_noisy = network.inlet.in_channels - known.shape[1]
    noisy_weight, known_weight = network.inlet.weight.tensor_split([num_noisy], dim=1)
    modulations = torch.split(network.modulate(torch.tensor(levels, device=known.device)), 1)
    return BoundNetwork(
        network=network,
        noisy_inlet=_inlet(noisy_weight, None),
        known_share=_inlet(known_weight, network.inlet.bias)(known),
        modulations=dict(zip(levels, modulations, strict=True)),
        embedding=embedding,
    )


def _inlet(weight: Tensor, bias: Tensor | None) -> nn.Conv3d:
    width, channels = weight.shape[:2]
    inlet = nn.Conv3d(channels, width, 3, padding=1, bias=bias is not None, device="meta")  # draws no random numbers
    inlet.weight, inlet.bias = nn.Parameter(weight, requires_grad=False), bias
    return place(inlet, weight.device)
