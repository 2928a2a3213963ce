"""The network, the prompt and the schedule together: what is under the noise?"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.data.attribute_names import ATTRIBUTES
from promptlesion.diffusion.bound_network import bind_network
from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.network import PromptUNet
from promptlesion.diffusion.schedule import Denoise, Estimate, NoiseSchedule, Prediction, build_schedule
from promptlesion.prompt.attributes import AttributePrompt
from promptlesion.prompt.encoders import PromptEncoder, build_prompt_encoder, drop_prompts


class Denoiser(nn.Module):
    """Predicts from latents, surroundings, mask and prompt what `NoiseSchedule.target` says."""

    def __init__(
        self,
        *,
        network: PromptUNet,
        prompt_encoder: PromptEncoder | None,
        attributes: AttributePrompt | None = None,
        schedule: NoiseSchedule,
        prediction: Prediction,
    ) -> None:
        """Put the parts together; a network without prompt has no encoder."""
        super().__init__()
        self.network = network
        self.prompt_encoder = prompt_encoder
        self.attributes = attributes
        self.schedule = schedule
        self.prediction = prediction

    def forward(
        self,
        noisy: Float[Tensor, "batch channel x y z"],
        level: Int[Tensor, " batch"],
        conditioning: Conditioning,
        is_prompt_dropped: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch channel x y z"]:
        """Return the network's prediction; where the prompt is dropped, the prediction without prompt."""
        embedding = self.embed(conditioning)
        if embedding is not None:
            embedding = drop_prompts(embedding, is_prompt_dropped)
        inputs = torch.cat([noisy, conditioning.known], dim=1)
        predicted: Tensor = self.network(inputs, level, embedding)
        return predicted

    def embed(self, conditioning: Conditioning) -> Float[Tensor, "batch embedding 1 1 1"] | None:
        """Return the prompt: the type's embedding and, where the model knows attributes, that of those asked for."""
        if self.prompt_encoder is None:
            return None
        embedding = self.prompt_encoder(conditioning.lesion_type, conditioning.lesion_mask)
        if self.attributes is None:
            return embedding
        asked = conditioning.attributes
        if asked is None:
            asked = torch.full((len(embedding), self.attributes.mean.shape[1]), torch.nan, device=embedding.device)
        like: Tensor = self.attributes(conditioning.lesion_type, asked)
        return embedding + like

    @torch.no_grad()
    def bound(
        self,
        conditioning: Conditioning,
        levels: Sequence[int],
        *,
        guidance_scale: float = 1.0,
        recorder: StepRecorder | None = None,
    ) -> Denoise:
        """Return what splits a noisy latent into its clean part and its noise, for sampling.

        All that does not depend on the noisy latent is computed here, once for all levels: time embeddings, prompts,
        and the surroundings' share of the first convolution. To be called, as what it returns, with autocast or
        without.

        Args:
            conditioning: of the batch to sample.
            levels: that will be visited.
            guidance_scale: of classifier-free guidance (Ho and Salimans 2022, eq. 6): without + scale * (with -
                without prompt). Both are computed as one batch, and the encoder, which sees no prompt, only once.
            recorder: of the network's step.
        """
        embedding = self.embed(conditioning)
        is_guided = embedding is not None and guidance_scale != 1
        if embedding is not None and is_guided:
            embedding = torch.cat([embedding, torch.zeros_like(embedding)])
        network = bind_network(self.network, conditioning.known, levels, embedding)
        predict = network if recorder is None else recorder(network, conditioning.surroundings)

        @torch.no_grad()
        def denoise(noisy: Tensor, level: int) -> Estimate:
            predicted = predict(noisy, level)
            if is_guided:
                with_prompt, without = predicted.chunk(2)
                predicted = without + guidance_scale * (with_prompt - without)
            return self.schedule.split(noisy, predicted, level, self.prediction)

        return denoise


def build_networks(config: DiffusionConfig, *, autoencoder: AutoencoderConfig, num_types: int) -> dict[str, nn.Module]:
    """Build the prompt encoder, if there is one with parameters, and the U-Net of a configuration, by name."""
    denoiser = build_denoiser(
        config,
        latent_channels=autoencoder.latent_channels,
        latent_voxels=config.patch_voxels // autoencoder.downsampling,
        num_types=num_types,
    )
    networks: dict[str, nn.Module] = {}
    if isinstance(denoiser.prompt_encoder, nn.Module):
        networks[f"prompt encoder ({config.prompt_encoder})"] = denoiser.prompt_encoder
    return {**networks, "diffusion U-Net": denoiser.network}


def build_denoiser(config: DiffusionConfig, *, latent_channels: int, latent_voxels: int, num_types: int) -> Denoiser:
    """Build the denoiser of a configuration, untrained."""
    downsampling = config.patch_voxels // latent_voxels
    prompt_encoder = build_prompt_encoder(
        config.prompt_encoder,
        num_types=num_types,
        mask_voxels=latent_voxels,
        key_value_heads=config.prompt_key_value_heads,
    )
    attributes = None
    if config.attributes:
        assert prompt_encoder is not None
        attributes = AttributePrompt(
            num_types=num_types,
            num_attributes=len(ATTRIBUTES),
            embedding_dimension=prompt_encoder.embedding_dimension,
        )
    network = PromptUNet(
        in_channels=2 * latent_channels + 1 + (downsampling**3 if config.mask == "whole" else 0),
        out_channels=latent_channels,
        channels=config.channels,
        blocks_per_level=config.blocks_per_level,
        attention_levels=config.attention_levels,
        attention_head_channels=config.attention_head_channels,
        embedding_dimension=prompt_encoder.embedding_dimension if prompt_encoder is not None else None,
        prompt_block=config.prompt_block,
        num_components=config.prompt_components,
    )
    return Denoiser(
        network=network,
        prompt_encoder=prompt_encoder,
        attributes=attributes,
        schedule=build_schedule(config),
        prediction=config.prediction,
    )
