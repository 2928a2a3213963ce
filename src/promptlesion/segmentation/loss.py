"""The loss of stage 3: Dice plus cross-entropy, at one resolution or at several."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor, nn

from promptlesion.segmentation.dynunet import supervision_weights
from promptlesion.segmentation.label_classes import IGNORED_CLASS, LabelClasses
from promptlesion.training.device import autocast
from promptlesion.training.launch import all_reduced_sum, global_sum
from promptlesion.training.optimisation import Precision

_SMOOTHING = 1e-5
"""Of the Dice of a label that neither the batch nor the network has."""


class SegmentationLoss(nn.Module):
    """Soft Dice over the whole batch, background left out, plus cross-entropy in which lesions weigh more.

    The batch is that of all processes together.
    Dice is summed over the batch before it is divided, so that a patch without a lesion does not count as a miss.
    A lesion fills one voxel in some hundreds of a patch, and the plain mean of the cross-entropy hardly sees it.
    Voxels that nobody labelled, of the class `IGNORED_CLASS`, are in none of the sums.
    """

    def __init__(self, classes: LabelClasses, *, lesion_labels: Iterable[int], lesion_weight: float) -> None:
        """Prepare the weights."""
        super().__init__()
        lesions = set(lesion_labels)
        weights = torch.tensor([lesion_weight if value in lesions else 1.0 for value in classes.values])
        self._has_ignored = classes.ignored is not None
        self.register_buffer("weights", weights, persistent=False)

    weights: Tensor

    def forward(
        self,
        scores: Float[Tensor, "batch label x y z"] | list[Float[Tensor, "batch label _ _ _"]],
        truth: Int[Tensor, "batch 1 x y z"],
    ) -> Float[Tensor, ""]:
        """Return the loss, computed in float32; that of several resolutions, finest first, is their weighted sum."""
        if isinstance(scores, Tensor):
            scores = scores.float()
            is_counted = truth != IGNORED_CLASS if self._has_ignored else None
            truth = truth if is_counted is None else torch.where(is_counted, truth, 0)
            return soft_dice_loss(scores, truth, is_counted) + self.cross_entropy(scores, truth, is_counted)
        weights = supervision_weights(len(scores))
        losses = [self(coarser, _nearest(truth, coarser.shape[2:])) for coarser in scores]
        return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()

    def cross_entropy(
        self,
        scores: Float[Tensor, "batch label x y z"],
        truth: Int[Tensor, "batch 1 x y z"],
        is_counted: Bool[Tensor, "batch 1 x y z"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean over the voxels, each weighted by its label; over those that count alone."""
        if is_counted is None:
            total = F.cross_entropy(scores, truth[:, 0], weight=self.weights, reduction="sum")
            return global_sum(total) / all_reduced_sum(self.weights[truth].sum())
        by_voxel = F.cross_entropy(scores, truth[:, 0], weight=self.weights, reduction="none")
        weight = all_reduced_sum((self.weights[truth] * is_counted).sum())
        return global_sum((by_voxel * is_counted[:, 0]).sum()) / weight.clamp(min=1.0)


def score_loss(
    network: nn.Module,
    loss_of: SegmentationLoss,
    image: Float[Tensor, "batch 1 x y z"],
    truth: Integer[Tensor, "batch 1 x y z"],
    *,
    precision: Precision,
) -> Float[Tensor, ""]:
    """Return the loss of what a network makes of patches whose classes are `truth`."""
    with autocast(image.device, precision):
        scores = network(image)
    loss: Tensor = loss_of(scores, truth.long())
    return loss


def _nearest(truth: Int[Tensor, "batch 1 x y z"], shape: torch.Size) -> Int[Tensor, "batch 1 _ _ _"]:
    return F.interpolate(truth.float(), size=shape, mode="nearest-exact").long()


def soft_dice_loss(
    scores: Float[Tensor, "batch label x y z"],
    truth: Int[Tensor, "batch 1 x y z"],
    is_counted: Bool[Tensor, "batch 1 x y z"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over the labels but the first of 1 - 2 |P T| / (|P| + |T|), P probabilities and T the truth.

    The sums are over the voxels that count.
    """
    probabilities = scores.softmax(dim=1)
    is_label = torch.zeros_like(probabilities).scatter_(1, truth, 1.0)
    if is_counted is not None:
        probabilities, is_label = probabilities * is_counted, is_label * is_counted
    voxels = (0, 2, 3, 4)
    overlap = global_sum((probabilities * is_label).sum(dim=voxels)[1:])
    size = global_sum((probabilities + is_label).sum(dim=voxels)[1:])
    return (1 - (2 * overlap + _SMOOTHING) / (size + _SMOOTHING)).mean()
