import pytest
import torch
from monai.losses.dice import DiceCELoss
from torch.nn.functional import cross_entropy, one_hot

from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import DatasetSpec
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.label_classes import IGNORED_CLASS, LabelClasses
from promptlesion.segmentation.loss import SegmentationLoss
from promptlesion.segmentation.mixing import SegmentationData, mixed_batches
from promptlesion.segmentation.network import build_segmentation_network

CLASSES = LabelClasses((0, 2, 5, 9))


def random_case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 4, 5, 6, 7, generator=generator)
    return scores, torch.randint(0, 4, (2, 1, 5, 6, 7), generator=generator)


def test_with_weight_1_it_is_monais_dice_and_cross_entropy() -> None:
    scores, truth = random_case()
    ours = SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=1.0)
    monais = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
    assert ours(scores, truth).item() == pytest.approx(monais(scores, truth).item(), rel=1e-6)


def test_lesion_voxels_weigh_as_much_as_asked_for() -> None:
    scores, truth = random_case()
    weight = torch.where(truth[:, 0] >= 2, 8.0, 1.0)
    by_voxel = cross_entropy(scores, truth[:, 0], reduction="none")
    expected = (weight * by_voxel).sum() / weight.sum()
    loss = SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=8.0)
    found = loss.cross_entropy(scores, truth)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_perfect_scores_cost_nothing() -> None:
    _, truth = random_case()
    scores = 50.0 * one_hot(truth[:, 0], 4).movedim(-1, 1).float()
    assert SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=8.0)(scores, truth).item() < 1e-4


def test_one_batch_is_learnt_by_heart(spec: DatasetSpec, cases: list[CachedCase]) -> None:
    config = SegmentationConfig(patch_voxels=16, channels=(8, 16), residual_units=1, batch_size=2)
    patches = mixed_batches(SegmentationData(cases, [], [], [], spec, {}), config, seed=0).draw(0)
    truth = CLASSES.to_classes(patches.labels).long()
    torch.manual_seed(0)
    network = build_segmentation_network(config, CLASSES.num_classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    loss_of = SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=4.0)
    first = loss_of(network(patches.image), truth).item()
    for _ in range(120):
        optimizer.zero_grad()
        loss = loss_of(network(patches.image), truth)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    assert (network(patches.image).argmax(dim=1) == truth[:, 0]).float().mean() > 0.98


def test_deep_supervision_is_the_weighted_sum_over_the_resolutions() -> None:
    """Of nested cubes, whose labels on the coarser grid are known."""
    coarse_truth = torch.randint(0, 4, (2, 1, 3, 4, 2), generator=torch.Generator().manual_seed(0))
    truth = coarse_truth.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    generator = torch.Generator().manual_seed(1)
    fine, coarse = torch.randn(2, 4, 6, 8, 4, generator=generator), torch.randn(2, 4, 3, 4, 2, generator=generator)
    loss_of = SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=8.0)
    expected = (2 * loss_of(fine, truth) + loss_of(coarse, coarse_truth)) / 3
    assert loss_of([fine, coarse], truth).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss_of([fine], truth).item() == pytest.approx(loss_of(fine, truth).item(), rel=1e-6)


IGNORING = LabelClasses((0, 2, 5, 9, 7), ignored=7)


def test_ignored_voxels_are_in_no_sum() -> None:
    """As if the patch ended there: the loss of the labelled half alone."""
    scores, truth = random_case()
    half = truth.clone()
    half[:, :, :, 3:] = IGNORED_CLASS
    ours = SegmentationLoss(IGNORING, lesion_labels=(5, 9), lesion_weight=8.0)
    plain = SegmentationLoss(CLASSES, lesion_labels=(5, 9), lesion_weight=8.0)
    expected = plain(scores[..., :3, :].contiguous(), truth[..., :3, :].contiguous())
    assert ours(scores, half).item() == pytest.approx(expected.item(), rel=1e-5)
    assert ours(scores, truth).item() == pytest.approx(plain(scores, truth).item(), rel=1e-6)


def test_ignored_voxels_have_no_gradient_and_a_patch_of_them_costs_nothing() -> None:
    scores, truth = random_case()
    scores.requires_grad_()
    truth[0] = IGNORED_CLASS
    SegmentationLoss(IGNORING, lesion_labels=(5, 9), lesion_weight=8.0)(scores, truth).backward()
    assert scores.grad is not None
    assert not scores.grad[0].any()
    assert scores.grad[1].abs().sum() > 0
    whole = torch.full_like(truth, IGNORED_CLASS)
    assert SegmentationLoss(IGNORING, lesion_labels=(5, 9), lesion_weight=8.0)(scores, whole).item() < 1e-6


def test_ignored_voxels_count_at_no_resolution() -> None:
    truth = torch.full((1, 1, 8, 8, 8), IGNORED_CLASS)
    loss = SegmentationLoss(IGNORING, lesion_labels=(5, 9), lesion_weight=8.0)
    scores = [torch.randn(1, 4, side, side, side) for side in (8, 4, 2)]
    assert loss(scores, truth).item() < 1e-6
