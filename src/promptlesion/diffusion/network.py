"""The PromptLesion U-Net: time-conditioned residual blocks, self-attention, a prompt in the decoder.

Knows neither the noise schedule nor what its output means.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from promptlesion.diffusion.prompt_block import PromptBlockKind, build_prompt_block

_TINY_VOXELS = 2


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 8), channels)


class TimeResidualBlock(nn.Module):
    """A residual block whose second norm is scaled and shifted by the time embedding."""

    def __init__(self, *, in_channels: int, out_channels: int, time_dimension: int) -> None:
        """Build the block; its last convolution starts at zero, so that it starts as its shortcut."""
        super().__init__()
        self.norm_in = _group_norm(in_channels)
        self.convolution_in = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dimension, 2 * out_channels)
        self.norm_out = _group_norm(out_channels)
        self.convolution_out = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.convolution_out.weight)
        assert self.convolution_out.bias is not None
        nn.init.zeros_(self.convolution_out.bias)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv3d(in_channels, out_channels, 1)

    def forward(
        self,
        features: Float[Tensor, "batch in_channels x y z"],
        modulation: Float[Tensor, "#batch doubled_out_channels"],
    ) -> Float[Tensor, "batch out_channels x y z"]:
        """Return features of the same resolution; `modulation` is what `time` makes of the time embedding."""
        hidden = self.convolution_in(F.silu(self.norm_in(features)))
        scale, shift = modulation[:, :, None, None, None].chunk(2, dim=1)
        residual: Tensor = self.convolution_out(F.silu(self.norm_out(hidden) * (1 + scale) + shift))
        shortcut: Tensor = self.shortcut(features)
        return shortcut + residual


class SelfAttention(nn.Module):
    """Multi-head self-attention over all voxels of the feature map, around a shortcut."""

    def __init__(self, *, channels: int, head_channels: int) -> None:
        """Build the projections; the output projection starts at zero."""
        super().__init__()
        self.num_heads = max(1, channels // head_channels)
        self.norm = _group_norm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x y z"]:
        """Return features of the same shape."""
        batch, channels, *size = features.shape
        tokens = self.norm(features).flatten(2).transpose(1, 2)
        split = self.query_key_value(tokens).view(batch, -1, 3, self.num_heads, channels // self.num_heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        residual: Tensor = self.output(attended).transpose(1, 2).reshape(batch, channels, *size)
        return features + residual


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by self-attention where asked for."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        time_dimension: int,
        head_channels: int | None,
    ) -> None:
        """Build the blocks; `head_channels` of None means no attention."""
        super().__init__()
        self.blocks = nn.ModuleList(
            TimeResidualBlock(
                in_channels=in_channels if index == 0 else out_channels,
                out_channels=out_channels,
                time_dimension=time_dimension,
            )
            for index in range(num_blocks)
        )
        self.attentions = nn.ModuleList(
            nn.Identity()
            if head_channels is None
            else SelfAttention(channels=out_channels, head_channels=head_channels)
            for _ in range(num_blocks)
        )

    def forward(
        self, features: Float[Tensor, "batch in_channels x y z"], modulations: Sequence[Tensor]
    ) -> Float[Tensor, "batch out_channels x y z"]:
        """Return features of the same resolution; a bottleneck of two voxels is trained in float32.

        There oneDNN's bfloat16 weight gradient of a 3x3x3 convolution reads memory nobody wrote (torch 2.13, CPU).
        """
        if min(features.shape[2:]) <= _TINY_VOXELS and torch.is_grad_enabled():
            with torch.autocast(features.device.type, enabled=False):
                return self._run(features.float(), [modulation.float() for modulation in modulations])
        return self._run(features, modulations)

    def _run(self, features: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        for block, attention, modulation in zip(self.blocks, self.attentions, modulations, strict=True):
            features = attention(block(features, modulation))
        return features


class PromptInjection(nn.Module):
    """f' = two residual blocks and a 1x1x1 convolution over concat(f, p), p from a prompt block."""

    def __init__(
        self,
        *,
        channels: int,
        embedding_dimension: int,
        prompt_block: PromptBlockKind,
        num_components: int,
        time_dimension: int,
    ) -> None:
        """Build the prompt block and what follows it."""
        super().__init__()
        self.prompt = build_prompt_block(
            prompt_block, channels=channels, embedding_dimension=embedding_dimension, num_components=num_components
        )
        self.blocks = nn.ModuleList(
            TimeResidualBlock(in_channels=2 * channels, out_channels=2 * channels, time_dimension=time_dimension)
            for _ in range(2)
        )
        self.merge = nn.Conv3d(2 * channels, channels, 1)

    def forward(
        self,
        features: Float[Tensor, "batch channel x y z"],
        modulations: Sequence[Tensor],
        embedding: Float[Tensor, "batch embedding 1 1 1"],
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return the features with the prompt in them."""
        joined = torch.cat([features, self.prompt(features, embedding).to(features.dtype)], dim=1)
        for block, modulation in zip(self.blocks, modulations, strict=True):
            joined = block(joined, modulation)
        merged: Tensor = self.merge(joined)
        return merged


class PromptUNet(nn.Module):
    """U-Net over latents; every decoder resolution has its own prompt injection, the bottleneck has none.

    Without prompt there are no injections, and what remains is a plain U-Net.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        blocks_per_level: int,
        attention_levels: Sequence[int],
        attention_head_channels: int,
        embedding_dimension: int | None,
        prompt_block: PromptBlockKind,
        num_components: int,
    ) -> None:
        """Build the network.

        Args:
            channels: at each resolution, finest first; the last is the bottleneck.
            embedding_dimension: of the prompt embedding; None builds the network without prompt.
            prompt_block: what makes feature maps of the embedding, see `build_prompt_block`.
            num_components: that a `PromptGenBlock` mixes.
        """
        super().__init__()
        self.time_channels = channels[0]
        time_dimension = 4 * channels[0]
        self.time = nn.Sequential(
            nn.Linear(channels[0], time_dimension), nn.SiLU(), nn.Linear(time_dimension, time_dimension)
        )
        self.inlet = nn.Conv3d(in_channels, channels[0], 3, padding=1)
        num_levels = len(channels)

        def level(index: int, level_in_channels: int) -> Level:
            return Level(
                in_channels=level_in_channels,
                out_channels=channels[index],
                num_blocks=blocks_per_level,
                time_dimension=time_dimension,
                head_channels=attention_head_channels if index in attention_levels else None,
            )

        self.encoder = nn.ModuleList(level(index, channels[max(0, index - 1)]) for index in range(num_levels))
        self.downsamples = nn.ModuleList(nn.Conv3d(width, width, 3, stride=2, padding=1) for width in channels[:-1])
        decoded = list(reversed(range(num_levels - 1)))
        self.upsamples = nn.ModuleList(
            nn.Conv3d(channels[index + 1], channels[index], 3, padding=1) for index in decoded
        )
        self.injections = nn.ModuleList(
            PromptInjection(
                channels=channels[index],
                embedding_dimension=embedding_dimension,
                prompt_block=prompt_block,
                num_components=num_components,
                time_dimension=time_dimension,
            )
            for index in decoded
            if embedding_dimension is not None
        )
        self.decoder = nn.ModuleList(level(index, 2 * channels[index]) for index in decoded)
        outlet = nn.Conv3d(channels[0], out_channels, 3, padding=1)
        nn.init.zeros_(outlet.weight)
        assert outlet.bias is not None
        nn.init.zeros_(outlet.bias)
        self.outlet = nn.Sequential(_group_norm(channels[0]), nn.SiLU(), outlet)

    def forward(
        self,
        latents: Float[Tensor, "batch in_channels x y z"],
        level: Int[Tensor, " batch"],
        embedding: Float[Tensor, "batch embedding 1 1 1"] | None,
    ) -> Float[Tensor, "batch out_channels x y z"]:
        """Return the prediction for latents at the given noise levels under the given prompts, if it takes any."""
        return self.predict(self.inlet(latents), self.modulate(level), embedding)

    def modulate(self, level: Int[Tensor, " level"]) -> Float[Tensor, "level modulation"]:
        """Return what every residual block makes of the noise levels, side by side."""
        time = F.silu(self.time(sinusoidal_embedding(level, self.time_channels)))
        return torch.cat([block.time(time) for blocks in self._blocks for block in blocks], dim=1)

    def predict(
        self,
        features: Float[Tensor, "batch channel x y z"],
        modulation: Float[Tensor, "#batch modulation"],
        embedding: Float[Tensor, "prompt embedding 1 1 1"] | None,
    ) -> Float[Tensor, "prompt_or_batch out_channels x y z"]:
        """Return the prediction for what the inlet made of the latents.

        Args:
            embedding: one prompt per sample or several: the first of each, then the second of each and so on. The
                encoder, which sees no prompt, runs once for all of them.
        """
        shares = iter(torch.split(modulation, [block.time.out_features for part in self._blocks for block in part], 1))
        modulations = iter([[next(shares) for _ in part] for part in self._blocks])
        skips: list[Tensor] = []
        for index, encode in enumerate(self.encoder):
            features = encode(features, next(modulations))
            if index < len(self.downsamples):
                skips.append(features)
                features = self.downsamples[index](features)
        for index, (upsample, decode) in enumerate(zip(self.upsamples, self.decoder, strict=True)):
            skip = skips.pop()
            features = upsample(F.interpolate(features, size=skip.shape[2:], mode="nearest"))
            if self.injections:
                assert embedding is not None
                features = _for_each_prompt(features, len(embedding))
                skip = _for_each_prompt(skip, len(embedding))
                features = self.injections[index](features, next(modulations), embedding)
            features = decode(torch.cat([features, skip], dim=1), next(modulations))
        prediction: Tensor = self.outlet(features)
        return prediction.float()

    @property
    def _blocks(self) -> list[list[TimeResidualBlock]]:
        """The residual blocks of every part that has some, in the order in which they compute."""
        decoded: list[nn.Module] = list(self.decoder)
        if self.injections:
            decoded = [part for pair in zip(self.injections, self.decoder, strict=True) for part in pair]
        return [
            [module for module in part.modules() if isinstance(module, TimeResidualBlock)]
            for part in [*self.encoder, *decoded]
        ]


def _for_each_prompt(features: Tensor, num_prompts: int) -> Tensor:
    copies = num_prompts // len(features)
    return features.repeat(copies, 1, 1, 1, 1) if copies > 1 else features


def sinusoidal_embedding(level: Int[Tensor, " batch"], dimension: int) -> Float[Tensor, "batch dimension"]:
    """Return sines and cosines of the level at geometrically spaced frequencies (Vaswani et al. 2017)."""
    half = dimension // 2
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(half, device=level.device) / half)
    angle = level[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


BLOCKS = (TimeResidualBlock, SelfAttention)
"""Whose activations may be computed again in the backward pass."""
