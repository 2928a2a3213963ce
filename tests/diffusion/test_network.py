"""The U-Net: shapes, where the prompt enters, and what it may cost."""

import tomllib
from importlib.resources import files

import numpy as np
import pytest
import torch
from torch import nn

from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import build_denoiser
from promptlesion.diffusion.network import Level, PromptUNet, SelfAttention, sinusoidal_embedding
from promptlesion.diffusion.prompt_block import PROMPT_BLOCKS


def small_unet(channels: tuple[int, ...] = (8, 16, 24, 24), embedding_dimension: int | None = 3) -> PromptUNet:
    torch.manual_seed(0)
    return PromptUNet(
        in_channels=5,
        out_channels=2,
        channels=channels,
        blocks_per_level=1,
        attention_levels=(1, 2),
        attention_head_channels=8,
        embedding_dimension=embedding_dimension,
        prompt_block="components",
        num_components=4,
    )


def num_parameters(modules: list[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("size", [(12, 9, 7), (3, 3, 3), (8, 16, 8), (5, 1, 6)])
def test_the_output_has_the_inputs_size_whatever_it_is(size: tuple[int, int, int]) -> None:
    output = small_unet()(torch.randn(2, 5, *size), torch.tensor([0, 399]), torch.randn(2, 3, 1, 1, 1))
    assert output.shape == (2, 2, *size)


def test_the_untrained_output_is_zero() -> None:
    output = small_unet()(torch.randn(2, 5, 6, 4, 5), torch.tensor([1, 2]), torch.randn(2, 3, 1, 1, 1))
    assert output.abs().max() == 0


def test_every_parameter_is_trained_and_the_prompt_comes_to_matter() -> None:
    """Learn to answer with the sign of the prompt, from an input that says nothing about it."""
    network = small_unet(channels=(8, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    embedding = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None, None]
    target = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1, 1).expand(2, 2, 6, 4, 5)
    has_gradient: set[str] = set()
    for _ in range(40):
        latents = torch.randn(1, 5, 6, 4, 5, generator=generator).expand(2, -1, -1, -1, -1)
        loss = (network(latents, torch.tensor([3, 3]), embedding) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        has_gradient |= {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert has_gradient == {name for name, _ in network.named_parameters()}
    assert loss.item() < 0.3
    latents = torch.randn(1, 5, 6, 4, 5, generator=generator)
    with torch.no_grad():
        first, second = (network(latents, torch.tensor([3]), prompt[None]).mean() for prompt in embedding)
    assert first - second > 0.5


def test_a_sample_does_not_depend_on_its_batch() -> None:
    network = small_unet()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    latents, level, embedding = (
        torch.randn(3, 5, 6, 7, 5),
        torch.tensor([1, 5, 9]),
        torch.randn(3, 3, 1, 1, 1),
    )
    together = network(latents, level, embedding)
    assert together.std() > 0
    torch.testing.assert_close(together[1:2], network(latents[1:2], level[1:2], embedding[1:2]), rtol=1e-4, atol=1e-5)


def test_attention_equals_torchs_own() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(channels=16, head_channels=8)
    nn.init.normal_(attention.output.weight)
    reference = nn.MultiheadAttention(16, 2, batch_first=True)
    reference.in_proj_weight, reference.in_proj_bias = (
        attention.query_key_value.weight,
        attention.query_key_value.bias,
    )
    reference.out_proj.weight, reference.out_proj.bias = attention.output.weight, attention.output.bias
    features = torch.randn(2, 16, 3, 2, 4)
    tokens = attention.norm(features).flatten(2).transpose(1, 2)
    attended, _ = reference(tokens, tokens, tokens, need_weights=False)
    expected = features + attended.transpose(1, 2).reshape(features.shape)
    torch.testing.assert_close(attention(features), expected)


def test_levels_are_embedded_as_sines_and_cosines() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0, 3, 399]), 8).numpy()
    angles = np.array([0, 3, 399])[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(embedding, np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=1e-4)


def demo_config() -> DiffusionConfig:
    preset = tomllib.loads(files("promptlesion").joinpath("presets", "demo.toml").read_text())
    return DiffusionConfig.model_validate(preset["diffusion"])


@pytest.mark.parametrize("config", [DiffusionConfig(), demo_config()], ids=["paper", "demo"])
@pytest.mark.parametrize("encoder", ["mask-transformer", "one-hot", "embedding"])
@pytest.mark.parametrize("block", ["upsample", "components"])
def test_the_prompt_blocks_cost_at_most_a_twentieth(config: DiffusionConfig, encoder: str, block: str) -> None:
    config = config.model_copy(update={"prompt_encoder": encoder, "prompt_block": block})
    with torch.device("meta"):
        denoiser = build_denoiser(config, latent_channels=8, latent_voxels=24, num_types=5)
    network = denoiser.network
    blocks: list[nn.Module] = [injection.prompt for injection in network.injections]
    assert 0 < num_parameters(blocks) <= 0.05 * num_parameters([network])


def test_the_prompt_enters_at_every_decoder_resolution_and_not_at_the_bottleneck() -> None:
    with torch.device("meta"):
        network = build_denoiser(DiffusionConfig(), latent_channels=8, latent_voxels=24, num_types=5).network
    widths = [injection.merge.out_channels for injection in network.injections]
    assert widths == [256, 128, 64]


def test_the_paper_injects_at_24_12_and_6_latent_voxels_and_not_at_3() -> None:
    config, seen = DiffusionConfig(), []
    edge = config.patch_voxels // AutoencoderConfig().downsampling
    with torch.device("meta"):
        denoiser = build_denoiser(config, latent_channels=8, latent_voxels=edge, num_types=5)
        network = denoiser.network
        for name, module in [*network.named_modules()]:
            if isinstance(module, PROMPT_BLOCKS) or name == "encoder.3":
                module.register_forward_hook(
                    lambda module, inputs, _: seen.append((type(module).__name__, *inputs[0].shape[2:]))
                )
        embedding = denoiser.prompt_encoder(torch.zeros(2, dtype=torch.long), torch.zeros(2, 1, edge, edge, edge))
        network(torch.zeros(2, 17, edge, edge, edge), torch.zeros(2, dtype=torch.long), embedding)
    assert seen == [("Level", 3, 3, 3), *(("UpsampledPromptBlock", size, size, size) for size in (6, 12, 24))]


def test_without_prompt_nothing_is_injected_and_the_rest_is_the_same() -> None:
    with torch.device("meta"):
        plain, prompted = (
            build_denoiser(
                DiffusionConfig.model_validate({"prompt_encoder": name}),
                latent_channels=8,
                latent_voxels=24,
                num_types=5,
            ).network
            for name in ("none", "one-hot")
        )
    rest = {name for name, _ in prompted.named_parameters() if not name.startswith("injections.")}
    assert {name for name, _ in plain.named_parameters()} == rest
    output = small_unet(embedding_dimension=None)(torch.randn(2, 5, 6, 4, 5), torch.tensor([1, 2]), None)
    assert output.shape == (2, 2, 6, 4, 5)


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize("size", [(2, 5, 4), (3, 5, 4)])
def test_a_level_of_two_voxels_is_trained_in_float32(size: tuple[int, int, int], is_trained: bool) -> None:
    torch.manual_seed(0)
    level = Level(in_channels=8, out_channels=16, num_blocks=1, time_dimension=4, head_channels=8)
    features, modulation, seen = torch.randn(2, 8, *size), torch.randn(2, 32), []
    level.blocks[0].convolution_in.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    with torch.set_grad_enabled(is_trained), torch.autocast("cpu", dtype=torch.bfloat16):
        output = level(features, [modulation])
    is_exact = is_trained and min(size) == 2
    assert seen == [torch.float32 if is_exact else torch.bfloat16]
    exact = level(features, [modulation])
    if is_exact:
        assert torch.equal(output, exact)
    else:
        torch.testing.assert_close(output.float(), exact, rtol=0.05, atol=0.05)
