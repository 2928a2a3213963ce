"""What the reconstruction is held to besides the discriminators."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from promptlesion.data.lesion_weight import lesion_weights


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
    return (weight * (reconstruction.float() - image).abs()).sum() / weight.sum()


class PerceptualLoss(nn.Module):
    """Distance of unit-normalised ImageNet features (Zhang et al. 2018, without learned weights)."""

    def __init__(self, features: nn.Module) -> None:
        """Take a frozen network that returns feature maps of one-channel slices in [-1, 1]."""
        super().__init__()
        self.features = features

    def forward(
        self,
        reconstruction: Float[Tensor, "slice 1 height width"],
        image: Float[Tensor, "slice 1 height width"],
    ) -> Float[Tensor, ""]:
        """Return the mean over feature maps of the squared distance between unit feature vectors."""
        with torch.no_grad():
            targets: Sequence[Tensor] = self.features(image)
        found: Sequence[Tensor] = self.features(reconstruction)
        distances = [
            (F.normalize(a.float(), dim=1, eps=1e-6) - F.normalize(b.float(), dim=1, eps=1e-6))
            .square()
            .sum(dim=1)
            .mean()
            for a, b in zip(found, targets, strict=True)
        ]
        return torch.stack(distances).mean()
