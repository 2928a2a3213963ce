"""The denoiser's two parametrisations, guidance, and that it can learn."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.diffusion.loss import denoising_loss
from promptlesion.diffusion.prompt_block import PromptGenBlock
from promptlesion.diffusion.schedule import Prediction

PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)


def tiny_config(prediction: Prediction, encoder: str, block: str) -> DiffusionConfig:
    return DiffusionConfig.model_validate(
        {
            "num_levels": 40,
            "rescale_betas": True,
            "prediction": prediction,
            "prompt_encoder": encoder,
            "prompt_block": block,
            "channels": (16, 16),
            "blocks_per_level": 1,
            "attention_levels": (1,),
            "attention_head_channels": 8,
        }
    )


def tiny_denoiser(prediction: Prediction, encoder: str = "mask-transformer", block: str = "upsample") -> Denoiser:
    torch.manual_seed(0)
    return build_denoiser(tiny_config(prediction, encoder, block), latent_channels=3, latent_voxels=6, num_types=2)


def randomized(denoiser: Denoiser) -> Denoiser:
    """Fill the layers that start at zero, so that the output depends on every input."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for injection in denoiser.network.injections:
            prompt = injection.prompt
            (prompt.weigh if isinstance(prompt, PromptGenBlock) else prompt.project).weight.mul_(10.0)
    return denoiser


@pytest.fixture
def conditioning() -> Conditioning:
    generator = torch.Generator().manual_seed(2)
    return Conditioning(
        surroundings=torch.randn(3, 3, 6, 6, 6, generator=generator),
        lesion_mask=(torch.rand(3, 1, 6, 6, 6, generator=generator) > 0.8).float(),
        lesion_type=torch.tensor([0, 1, 0]),
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("level", [0, 20, 39])
def test_the_target_gives_back_the_clean_latent_and_the_noise(
    prediction: Prediction, level: int, conditioning: Conditioning, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = tiny_denoiser(prediction)
    clean, noise = torch.randn(2, 3, 3, 6, 6, 6, generator=torch.Generator().manual_seed(3))
    levels = torch.full((3,), level)
    noisy = denoiser.schedule.add_noise(clean, noise, levels)
    perfect = denoiser.schedule.target(clean, noise, levels, denoiser.prediction)
    monkeypatch.setattr(denoiser.network, "predict", lambda *_: perfect)
    estimate = denoiser.bound(conditioning, [level])(noisy, level)
    torch.testing.assert_close(estimate.clean, clean, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(estimate.noise, noise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@torch.no_grad()
def test_an_estimates_parts_add_up_to_the_noisy_latent(prediction: Prediction, conditioning: Conditioning) -> None:
    denoiser = randomized(tiny_denoiser(prediction))
    noisy = torch.randn(3, 3, 6, 6, 6)
    estimate = denoiser.bound(conditioning, [25], guidance_scale=2.0)(noisy, 25)
    again = denoiser.schedule.add_noise(estimate.clean, estimate.noise, torch.full((3,), 25))
    torch.testing.assert_close(again, noisy, rtol=1e-3, atol=1e-3)


def test_v_is_noise_error_weighted_by_the_signal() -> None:
    """|v - v'|^2 = |noise - noise'|^2 / alpha_bar for estimates of one noisy latent."""
    denoiser = tiny_denoiser("v")
    level = torch.tensor([5, 30])
    clean, noise, other = torch.randn(3, 2, 3, 6, 6, 6)
    noisy = denoiser.schedule.add_noise(clean, noise, level)
    signal, sigma = denoiser.schedule.signal_and_noise(level, noisy)
    other_clean = (noisy - sigma * other) / signal
    error = (
        denoiser.schedule.target(clean, noise, level, denoiser.prediction)
        - denoiser.schedule.target(other_clean, other, level, denoiser.prediction)
    ).square()
    torch.testing.assert_close(error, (noise - other).square() / signal**2, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_guidance_is_off_at_one_and_linear_in_its_scale(conditioning: Conditioning) -> None:
    denoiser = randomized(tiny_denoiser("noise"))
    noisy, level = torch.randn(3, 3, 6, 6, 6), torch.full((3,), 12)
    keep, drop = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    plain, without = denoiser(noisy, level, conditioning, keep), denoiser(noisy, level, conditioning, drop)
    assert (plain - without).abs().max() > 1e-3

    def guided(scale: float) -> Tensor:
        return denoiser.bound(conditioning, [12], guidance_scale=scale)(noisy, 12).noise

    expected = {1.0: plain, 0.0: without, 3.0: without + 3 * (plain - without)}
    for scale, prediction in expected.items():
        torch.testing.assert_close(guided(scale), prediction, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", ["mask-transformer", "one-hot", "embedding"])
@pytest.mark.parametrize("block", ["upsample", "components"])
@torch.no_grad()
def test_a_dropped_prompt_does_not_tell_the_type(encoder: str, block: str, conditioning: Conditioning) -> None:
    denoiser = randomized(tiny_denoiser("noise", encoder, block))
    noisy, level = torch.randn(3, 3, 6, 6, 6), torch.full((3,), 12)
    other = Conditioning(conditioning.surroundings, conditioning.lesion_mask, 1 - conditioning.lesion_type)
    drop = torch.tensor([True, False, True])
    first, second = denoiser(noisy, level, conditioning, drop), denoiser(noisy, level, other, drop)
    assert torch.equal(first[drop], second[drop])
    assert (first[1] - second[1]).abs().max() > 1e-4


@torch.no_grad()
def test_without_prompt_there_is_a_plain_u_net_that_no_type_and_no_dropping_changes(conditioning: Conditioning) -> None:
    denoiser = randomized(tiny_denoiser("noise", "none"))
    assert denoiser.prompt_encoder is None
    assert not [name for name, _ in denoiser.named_parameters() if "injections" in name or "prompt" in name]
    noisy, level, keep = torch.randn(3, 3, 6, 6, 6), torch.full((3,), 12), torch.zeros(3, dtype=torch.bool)
    other = Conditioning(conditioning.surroundings, conditioning.lesion_mask, 1 - conditioning.lesion_type)
    first = denoiser(noisy, level, conditioning, keep)
    assert first.abs().max() > 0
    assert torch.equal(first, denoiser(noisy, level, other, ~keep))


@torch.no_grad()
def test_surroundings_and_mask_reach_the_network(conditioning: Conditioning) -> None:
    denoiser = randomized(tiny_denoiser("noise", "one-hot"))
    noisy, level, keep = torch.randn(3, 3, 6, 6, 6), torch.full((3,), 12), torch.zeros(3, dtype=torch.bool)
    plain = denoiser(noisy, level, conditioning, keep)
    others = (
        Conditioning(-conditioning.surroundings, conditioning.lesion_mask, conditioning.lesion_type),
        Conditioning(conditioning.surroundings, 1 - conditioning.lesion_mask, conditioning.lesion_type),
    )
    for other in others:
        assert (denoiser(noisy, level, other, keep) - plain).abs().max() > 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_one_batch_is_overfitted(prediction: Prediction, conditioning: Conditioning) -> None:
    denoiser = tiny_denoiser(prediction)
    clean, noise = torch.randn(2, 3, 3, 6, 6, 6, generator=torch.Generator().manual_seed(4))
    level, keep = torch.tensor([3, 20, 38]), torch.zeros(3, dtype=torch.bool)
    noisy, target = (
        denoiser.schedule.add_noise(clean, noise, level),
        denoiser.schedule.target(clean, noise, level, denoiser.prediction),
    )
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        predicted = denoiser(noisy, level, conditioning, keep)
        loss = denoising_loss(predicted, target, conditioning.lesion_mask, lesion_weight=1.0, kind="mse")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(target.square().mean().item(), rel=1e-4)
    assert losses[-1] < 0.2 * losses[0]
