"""The loss of stage 3: Dice plus cross-entropy."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from monai.losses.dice import DiceLoss
from torch import Tensor, nn

from promptlesion.segmentation.label_classes import LabelClasses


class SegmentationLoss(nn.Module):
    """Soft Dice over the whole batch, background left out, plus cross-entropy in which lesions weigh more.

    Dice is summed over the batch before it is divided, so that a patch without a lesion does not count as a miss.
    A lesion fills one voxel in some hundreds of a patch, and the plain mean of the cross-entropy hardly sees it.
    """

    def __init__(self, classes: LabelClasses, *, lesion_labels: Iterable[int], lesion_weight: float) -> None:
        """Prepare the weights.

        Args:
            classes: of the dataset's labels.
            lesion_labels: label values of the lesion types.
            lesion_weight: weight of a lesion voxel in the cross-entropy; any other weighs 1.
        """
        super().__init__()
        lesions = set(lesion_labels)
        weights = torch.tensor([lesion_weight if value in lesions else 1.0 for value in classes.values])
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        self.cross_entropy = nn.CrossEntropyLoss(weight=weights)

    def forward(
        self, scores: Float[Tensor, "batch label x y z"], truth: Int[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, ""]:
        """Return the loss, computed in float32."""
        scores = scores.float()
        loss: Tensor = self.dice(scores, truth) + self.cross_entropy(scores, truth[:, 0])
        return loss
