"""Both discriminators and their losses by hand."""

import pytest
import torch
from torch import Tensor

from promptlesion.autoencoder.discriminator import (
    Discriminators,
    adaptive_weight,
    axis_slices,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)

Maps = list[list[Tensor]]


@pytest.fixture
def judged() -> tuple[Maps, Maps]:
    generator = torch.Generator().manual_seed(0)

    def maps() -> Maps:
        return [
            [
                torch.randn(2, 4, 3, 2, 5, generator=generator),
                torch.randn(2, 1, 2, 2, 3, generator=generator),
            ],
            [torch.randn(6, 4, 3, 2, generator=generator), torch.randn(6, 1, 2, 3, generator=generator)],
        ]

    return maps(), maps()


def test_hinge_losses_by_hand(judged: tuple[Maps, Maps]) -> None:
    real, generated = judged
    expected, fooled = 0.0, 0.0
    for on_real, on_generated in zip(real, generated, strict=True):
        wrong_on_real = [max(0.0, 1 - logit) for logit in on_real[-1].flatten().tolist()]
        wrong_on_generated = [max(0.0, 1 + logit) for logit in on_generated[-1].flatten().tolist()]
        expected += 0.25 * (sum(wrong_on_real) / len(wrong_on_real) + sum(wrong_on_generated) / len(wrong_on_generated))
        fooled -= on_generated[-1].mean().item()
    assert discriminator_loss(real, generated).item() == pytest.approx(expected, rel=1e-5)
    assert generator_loss(generated).item() == pytest.approx(fooled, rel=1e-5)


def test_a_discriminator_that_is_sure_and_right_has_no_loss() -> None:
    real, generated = [[torch.full((2, 1, 3, 2, 2), 1.5)]], [[torch.full((2, 1, 3, 2, 2), -1.0)]]
    assert discriminator_loss(real, generated) == 0
    assert discriminator_loss(generated, real) > 2


def test_feature_matching_is_zero_for_equal_features_and_ignores_the_logits(
    judged: tuple[Maps, Maps],
) -> None:
    real, generated = judged
    same = [[features[0], torch.zeros_like(features[1])] for features in real]
    assert feature_matching_loss(real, same) == 0
    by_hand = sum((a[0] - b[0]).abs().mean().item() for a, b in zip(real, generated, strict=True)) / 2
    assert feature_matching_loss(real, generated).item() == pytest.approx(by_hand, rel=1e-5)


def test_feature_matching_pulls_the_generated_side_alone(judged: tuple[Maps, Maps]) -> None:
    real, generated = judged
    for features in (*real, *generated):
        features[0].requires_grad_()
    feature_matching_loss(real, generated).backward()
    assert all(features[0].grad is None for features in real)
    assert all(features[0].grad is not None for features in generated)


def test_slices_are_cut_along_all_three_axes() -> None:
    volume = torch.randn(2, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    slices = axis_slices(volume, [[1, 4], [0, 5], [2, 2]])
    assert slices.shape == (12, 1, 6, 6)
    expected = [volume[:, :, 1], volume[:, :, 4], volume[:, :, :, 0], volume[:, :, :, 5]]
    torch.testing.assert_close(slices, torch.cat([*expected, volume[..., 2], volume[..., 2]]))


def test_both_give_maps_and_end_with_logits() -> None:
    discriminators = Discriminators(channels=4, num_layers=2)
    volume = torch.randn(2, 1, 16, 16, 16)
    maps = discriminators(volume, axis_slices(volume, [[3], [8], [9]]))
    assert [len(features) for features in maps] == [4, 4]
    assert maps[0][-1].shape[:2] == (2, 1)
    assert maps[1][-1].shape[:2] == (6, 1)


@torch.no_grad()
def test_a_patch_is_judged_apart_from_its_batch() -> None:
    discriminators = Discriminators(channels=4, num_layers=2)
    volume = torch.randn(3, 1, 16, 16, 16)
    slices = volume[:, :, 3]
    together, alone = discriminators(volume, slices), discriminators(volume[1:2], slices[1:2])
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first[-1][1:2], second[-1], rtol=1e-3, atol=1e-4)


def test_the_adaptive_weight_makes_both_gradients_alike() -> None:
    """Esser et al. 2021, eq. 7, at a layer whose gradients are known."""
    layer = torch.tensor([3.0, -4.0]).requires_grad_()
    faithful, fooling = layer.square().sum(), 0.1 * layer.sum()
    weight = adaptive_weight(faithful, fooling, layer)
    assert weight.item() == pytest.approx(10.0 / (0.1 * 2**0.5), rel=1e-4)
    assert not weight.requires_grad
    gradients = [torch.autograd.grad(loss, layer, retain_graph=True)[0] for loss in (faithful, weight * fooling)]
    assert gradients[0].norm().item() == pytest.approx(gradients[1].norm().item(), rel=1e-4)


def test_the_adaptive_weight_is_capped_where_nothing_fools() -> None:
    layer = torch.tensor([3.0, -4.0]).requires_grad_()
    assert adaptive_weight(layer.square().sum(), 0.0 * layer.sum(), layer) == 1e4
