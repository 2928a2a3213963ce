import pytest
import torch

from promptlesion.data.lesion_weight import lesion_weights


def mask_of(share: float) -> torch.Tensor:
    mask = torch.zeros(2, 1, 5, 8, 10, dtype=torch.bool)
    mask.view(-1)[: round(share * mask.numel())] = True
    return mask


def test_few_lesion_voxels_have_the_asked_for_weight() -> None:
    weights = lesion_weights(mask_of(0.01), lesion_weight=20.0)
    assert weights[mask_of(0.01)].unique().tolist() == [20.0]
    assert weights[~mask_of(0.01)].unique().tolist() == [1.0]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_many_lesion_voxels_weigh_no_more_than_all_others(share: float) -> None:
    mask = mask_of(share)
    weights = lesion_weights(mask, lesion_weight=100.0)
    torch.testing.assert_close(weights[mask].sum(), weights[~mask].sum())


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_no_voxel_weighs_less_than_one(share: float) -> None:
    assert lesion_weights(mask_of(share), lesion_weight=100.0).min() == 1.0
