"""The denoiser of Med-DDPM: a U-Net over voxels that sees the noisy patch and, beside it, the label channels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.baselines.config import MedDDPMConfig
from promptlesion.diffusion.bound_network import bind_network
from promptlesion.diffusion.cuda_graph import StepRecorder
from promptlesion.diffusion.network import PromptUNet
from promptlesion.diffusion.schedule import Denoise, Estimate, NoiseSchedule, Prediction, cosine_schedule


class VoxelDenoiser(nn.Module):
    """Predicts the noise in a patch, or v as stage 2 does, from the patch and its labels, concatenated."""

    def __init__(self, *, network: PromptUNet, schedule: NoiseSchedule, prediction: Prediction) -> None:
        """Put the parts together; the network takes no prompt."""
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.prediction = prediction

    def forward(
        self,
        noisy: Float[Tensor, "batch 1 x y z"],
        level: Int[Tensor, " batch"],
        labels: Float[Tensor, "batch type x y z"],
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Return the network's prediction."""
        predicted: Tensor = self.network(torch.cat([noisy, labels], dim=1), level, None)
        return predicted

    @torch.no_grad()
    def bound(
        self,
        labels: Float[Tensor, "batch type x y z"],
        levels: Sequence[int],
        *,
        recorder: StepRecorder | None = None,
    ) -> Denoise:
        """Return what splits a noisy patch into its clean part and its noise, for sampling; see `Denoiser.bound`.

        The clean part is clipped to [-1, 1], what intensities can be: at the noisiest levels of the cosine schedule
        the least error of the predicted noise would else be thousands of them. The noise is what then remains.
        """
        network = bind_network(self.network, labels, levels, None)
        predict = network if recorder is None else recorder(network, labels[:, :1])

        @torch.no_grad()
        def denoise(noisy: Tensor, level: int) -> Estimate:
            estimate = self.schedule.split(noisy, predict(noisy, level), level, self.prediction)
            clean, pair = estimate.clean.clamp(-1, 1), self.schedule.at(level)
            return Estimate(clean=clean, noise=(noisy - pair.signal * clean) / pair.noise)

        return denoise


def build_networks(config: MedDDPMConfig, *, autoencoder: AutoencoderConfig, num_types: int) -> dict[str, nn.Module]:
    """Build the U-Net of a configuration, by name; it has no autoencoder."""
    return {"Med-DDPM U-Net": build_voxel_denoiser(config, num_types=num_types).network}


def build_voxel_denoiser(config: MedDDPMConfig, *, num_types: int) -> VoxelDenoiser:
    """Build the denoiser of a configuration, untrained, for the lesion types of a dataset."""
    network = PromptUNet(
        in_channels=1 + num_types,
        out_channels=1,
        channels=config.channels,
        blocks_per_level=config.blocks_per_level,
        attention_levels=config.attention_levels,
        attention_head_channels=config.attention_head_channels,
        embedding_dimension=None,
        prompt_block="components",
        num_components=1,
    )
    return VoxelDenoiser(
        network=network,
        schedule=cosine_schedule(num_levels=config.num_levels),
        prediction=config.prediction,
    )
