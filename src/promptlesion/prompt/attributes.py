"""What a lesion is like, put into the prompt: attributes standardised by type, any of them left out."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_MOST_DEVIATIONS = 4.0
_WIDTH = 128


class AttributePrompt(nn.Module):
    """Embeds the attributes asked for; what is added to the embedding of the type.

    Soft plaque varies by 12 HU in a window of 1500: told in standard deviations of its own type alone, it is read. An
    attribute that is NaN is not asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, num_types: int, num_attributes: int, embedding_dimension: int) -> None:
        """Build the layers; the scale of each type's attributes is that of no data yet."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_types, num_attributes))
        self.register_buffer("std", torch.ones(num_types, num_attributes))
        self.layers = nn.Sequential(
            nn.Linear(2 * num_attributes, _WIDTH), nn.SiLU(), nn.Linear(_WIDTH, embedding_dimension)
        )

    @torch.no_grad()
    def set_scale(self, mean: Float[Tensor, "type attribute"], std: Float[Tensor, "type attribute"]) -> None:
        """Take the mean and the standard deviation of each type's training lesions."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def standardised(
        self, lesion_type: Int[Tensor, " batch"], attributes: Float[Tensor, "batch attribute"]
    ) -> Float[Tensor, "batch attribute"]:
        """Return attributes in standard deviations of the type, 4 at most; NaN stays."""
        deviations = (attributes - self.mean[lesion_type]) / self.std[lesion_type]
        return deviations.clamp(-_MOST_DEVIATIONS, _MOST_DEVIATIONS)

    def forward(
        self, lesion_type: Int[Tensor, " batch"], attributes: Float[Tensor, "batch attribute"]
    ) -> Float[Tensor, "batch embedding 1 1 1"]:
        """Return one embedding per sample."""
        deviations = self.standardised(lesion_type, attributes)
        is_asked = torch.isfinite(deviations)
        told = torch.cat([torch.where(is_asked, deviations, 0.0), is_asked.to(deviations.dtype)], dim=1)
        embedding: Tensor = self.layers(told)
        return embedding[:, :, None, None, None]
