"""What the reconstruction is held to: voxels, features and discriminators; and what these are held to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from promptlesion.autoencoder.autoencoder import Autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import (
    Discriminators,
    adaptive_weight,
    axis_slices,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from promptlesion.autoencoder.perceptual import PerceptualLoss
from promptlesion.autoencoder.quantizer import Quantized, perplexity
from promptlesion.data.lesion_weight import lesion_weights, weighted_mean
from promptlesion.training.device import autocast
from promptlesion.training.loop import Loss


@dataclass(frozen=True)
class AutoencoderLosses:
    """The losses of a step of stage 1."""

    autoencoder: Autoencoder
    discriminators: Discriminators
    perceptual: PerceptualLoss | None
    config: AutoencoderConfig
    device: torch.device

    def __call__(
        self,
        image: Float[Tensor, "batch 1 x y z"],
        lesion_mask: Bool[Tensor, "batch 1 x y z"],
        *,
        positions: Sequence[Sequence[int]],
        generator: torch.Generator | None,
        is_quantized: bool,
        is_adversarial: bool,
    ) -> Iterator[Loss]:
        """Yield the loss of the autoencoder and, once it has descended it, that of the discriminators.

        Args:
            generator: chooses the tokens that become new codes, on the CPU; none where the quantizer does not learn.
            is_quantized: whether there is a codebook yet.
        """
        config, autoencoder, discriminators = self.config, self.autoencoder, self.discriminators
        with autocast(self.device, config.precision):
            reconstruction, quantized = autoencoder.reconstruct(image, generator, is_quantized=is_quantized)
            l1 = weighted_l1(reconstruction, image, lesion_mask, lesion_weight=config.lesion_weight)
            image_slices, slices = axis_slices(image, positions), axis_slices(reconstruction, positions)
            faithful, figures = l1, {"l1": l1, "commitment": quantized.commitment}
            if self.perceptual is not None:
                sees_patches = config.perceptual_network == "medicalnet"
                compared = (reconstruction, image) if sees_patches else (slices, image_slices)
                figures["perceptual"] = self.perceptual(*compared)
                faithful = faithful + config.perceptual_weight * figures["perceptual"]
            loss = faithful + config.commitment_weight * quantized.commitment
            if is_adversarial:
                real, generated = discriminators(image, image_slices), discriminators(reconstruction, slices)
                fooling, matching = generator_loss(generated), feature_matching_loss(real, generated)
                figures |= {"generator": fooling, "feature_matching": matching}
                if config.adversarial_weighting == "adaptive":
                    weight = figures["adaptive_weight"] = adaptive_weight(faithful, fooling, autoencoder.last_weight)
                    fooling = weight * fooling
                loss = loss + config.adversarial_weight * fooling + config.feature_matching_weight * matching
        usage = self._usage(quantized) if is_quantized else {}
        yield Loss("autoencoder", loss, figures if is_adversarial else {**figures, **usage})
        if is_adversarial:
            with autocast(self.device, config.precision):
                judged = discriminator_loss(real, discriminators(reconstruction.detach(), slices.detach()))
            yield Loss("discriminators", judged, {"discriminator": judged, **usage})

    def _usage(self, quantized: Quantized) -> dict[str, float]:
        if not self.autoencoder.quantizer.training:
            return {}
        return {"codebook_perplexity": perplexity(quantized.codes, self.config.codebook_size)}


def weighted_l1(
    reconstruction: Float[Tensor, "batch 1 x y z"],
    image: Float[Tensor, "batch 1 x y z"],
    lesion_mask: Bool[Tensor, "batch 1 x y z"],
    *,
    lesion_weight: float,
) -> Float[Tensor, ""]:
    """Return the mean absolute error in which a lesion voxel counts `lesion_weight` times (see `lesion_weights`).

    A plain mean hides the few bright voxels of a plaque: they come out at half their brightness.
    """
    weight = lesion_weights(lesion_mask, lesion_weight=lesion_weight)
    return weighted_mean((reconstruction.float() - image).abs(), weight)
