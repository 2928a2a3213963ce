"""What is bound once for many steps predicts as the plain network does, and is not computed again."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from promptlesion.diffusion.bound_network import bind_network, cast_weights
from promptlesion.diffusion.conditioning import Conditioning
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import Denoiser, build_denoiser
from promptlesion.training.device import autocast, place

CPU = torch.device("cpu")
LEVELS = [39, 20, 3]
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.02}
"""Of the difference's norm, relative: as the first convolution is a sum of two, it is rounded once more."""


class Operators(TorchDispatchMode):
    """Counts what is computed, and the inputs' batch sizes of every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.batches: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = str(func).split(".")[1]
        self.counts[name] += 1
        if "convolution" in name:
            self.batches[len(args[0])] += 1
        return func(*args, **(kwargs or {}))


def build(
    encoder: str = "mask-transformer", channels: tuple[int, ...] = (16, 24, 32), block: str = "components"
) -> Denoiser:
    torch.manual_seed(0)
    config = DiffusionConfig.model_validate(
        {
            "num_levels": 40,
            "prompt_encoder": encoder,
            "prompt_block": block,
            "channels": channels,
            "blocks_per_level": 1,
            "attention_levels": (1,),
            "attention_head_channels": 8,
        }
    )
    denoiser = build_denoiser(config, latent_channels=3, latent_voxels=12, num_types=2)
    for parameter in denoiser.parameters():
        if not parameter.any():  # what starts at zero would hide what comes before it
            nn.init.normal_(parameter, std=0.1)
    return place(denoiser.requires_grad_(requires_grad=False).eval(), CPU)


def made_up(batch: int) -> tuple[Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 12, 12, 12, generator=generator), Conditioning(
        surroundings=torch.randn(batch, 3, 12, 12, 12, generator=generator),
        lesion_mask=(torch.rand(batch, 1, 12, 12, 12, generator=generator) > 0.8).float(),
        lesion_type=torch.arange(batch) % 2,
    )


def plain(denoiser: Denoiser, noisy: Tensor, level: int, conditioning: Conditioning, guidance_scale: float) -> Tensor:
    """Return the prediction, everything computed anew and both branches apart: the plain form."""
    levels, keep = torch.full((len(noisy),), level), torch.zeros(len(noisy), dtype=torch.bool)
    predicted: Tensor = denoiser(noisy, levels, conditioning, keep)
    if guidance_scale != 1.0:
        without = denoiser(noisy, levels, conditioning, ~keep)
        predicted = without + guidance_scale * (predicted - without)
    return predicted


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@pytest.mark.parametrize("encoder", ["mask-transformer", "one-hot", "none"])
def test_bound_it_predicts_as_the_plain_form(encoder: str, guidance_scale: float, precision: str) -> None:
    denoiser = build(encoder)
    for batch in (1, 3):
        noisy, conditioning = made_up(batch)
        with autocast(CPU, precision):
            denoise = denoiser.bound(conditioning, LEVELS, guidance_scale=guidance_scale)
            for level in LEVELS:
                expected = plain(denoiser, noisy, level, conditioning, guidance_scale)
                difference = denoise(noisy, level).noise - expected
                assert difference.norm() < TOLERANCES[precision] * guidance_scale * expected.norm()


@pytest.mark.parametrize("encoder", ["mask-transformer", "none"])
def test_weights_cast_once_give_the_same_bits_as_cast_at_every_step(encoder: str) -> None:
    network, cast = build(encoder).network, cast_weights(build(encoder).network, torch.bfloat16)
    embedding = None if encoder == "none" else torch.randn(2, 64, 1, 1, 1)
    inputs = torch.randn(2, 7, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        bounds = [bind_network(each, inputs[:, 3:], LEVELS, embedding) for each in (network, cast)]
        for level in LEVELS:
            assert torch.equal(*(bound.modulations[level] for bound in bounds))
            assert torch.equal(*(bound(inputs[:, :3], level) for bound in bounds))
    assert network.inlet.weight.dtype is torch.float32
    assert cast.inlet.weight.dtype is torch.bfloat16
    assert bounds[1].network is cast
    norms = [module for module in cast.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.weight.dtype for norm in norms} == {torch.float32}


def test_a_step_computes_neither_time_nor_prompt_nor_casts_a_weight() -> None:
    denoiser, cast = build(), build()
    cast_weights(cast.network, torch.bfloat16)
    noisy, conditioning = made_up(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        denoise = cast.bound(conditioning, LEVELS)
        with Operators() as step:
            denoise(noisy, 20)
        with Operators() as all_anew:
            plain(denoiser, noisy, 20, conditioning, 1.0)
    num_blocks = sum("time." in name and name.endswith("weight") for name, _ in denoiser.network.named_parameters())
    num_weights = sum(
        len(list(module.parameters(recurse=False)))
        for module in denoiser.network.modules()
        if isinstance(module, nn.Conv3d | nn.Linear)
    )
    assert step.counts["sin"] == 0 < all_anew.counts["sin"]
    assert all_anew.counts["addmm"] - step.counts["addmm"] >= num_blocks
    assert step.counts["_to_copy"] < 10
    assert all_anew.counts["_to_copy"] > num_weights


def test_guidance_runs_the_encoder_once_and_the_decoder_on_one_batch() -> None:
    denoiser = build()
    noisy, conditioning = made_up(3)
    plain_step = denoiser.bound(conditioning, LEVELS)
    guided_step = denoiser.bound(conditioning, LEVELS, guidance_scale=2.0)
    with Operators() as once:
        plain_step(noisy, 20)
    with Operators() as guided:
        guided_step(noisy, 20)
    assert once.batches == {3: once.batches.total()}
    assert guided.batches.total() == once.batches.total()
    encoder = [denoiser.network.inlet, denoiser.network.encoder, denoiser.network.downsamples]
    num_shared = sum(isinstance(module, nn.Conv3d) for part in encoder for module in part.modules())
    assert guided.batches[3] == num_shared + 1  # the first upsampling's too, before the first prompt
    assert guided.batches[6] == guided.batches.total() - num_shared - 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_convolution_of_a_step_takes_the_slow_path(precision: str) -> None:
    denoiser = build()
    noisy, conditioning = made_up(1)
    with autocast(CPU, precision):
        denoise = denoiser.bound(conditioning, LEVELS)
        with torch.profiler.profile() as profiled:
            denoise(noisy, 20)
    names = {event.key for event in profiled.key_averages()}
    assert "aten::mkldnn_convolution" in names
    assert not [name for name in names if "slow_conv" in name]


def test_binding_draws_no_random_number_and_leaves_the_network_alone() -> None:
    denoiser = build()
    _, conditioning = made_up(1)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    state = torch.get_rng_state()
    with autocast(CPU, "bfloat16"):
        denoiser.bound(conditioning, LEVELS)
    assert torch.equal(torch.get_rng_state(), state)
    assert before.keys() == denoiser.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
