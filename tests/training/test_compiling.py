"""A network that cannot be built runs as it is; activations computed again change memory and work, and no number."""

import copy
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from promptlesion.autoencoder import network as autoencoder_network
from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.diffusion import network as diffusion_network
from promptlesion.diffusion.network import PromptUNet
from promptlesion.segmentation import network as segmentation_network
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.segmentation.network import build_segmentation_network
from promptlesion.training.compiling import checkpoint_activations, compile_network
from promptlesion.training.hardware import HardwareConfig

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch's own compiler


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))


def test_auto_and_off_build_nothing_on_a_cpu() -> None:
    tried: list[bool] = []
    for choice in (HardwareConfig().compile, "off"):
        assert not compile_network(network(), choice=choice, device=CPU, trial=lambda: tried.append(True))
    assert tried == []


def test_a_failure_is_said_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    plain, values = network(), torch.rand(5, 3)
    expected = plain(values)

    def fail() -> None:
        raise RuntimeError("no C++ compiler\nat all")

    with caplog.at_level(logging.WARNING):
        assert not compile_network(plain, choice="on", device=CPU, trial=fail)
    assert "cannot build the Sequential (no C++ compiler)" in caplog.text
    assert torch.equal(plain(values), expected)


@pytest.mark.slow
def test_a_built_network_has_the_same_names_and_gives_the_same(caplog: pytest.LogCaptureFixture) -> None:
    plain, built, values = network(), network(), torch.rand(5, 3)
    names = list(built.state_dict())
    is_built = compile_network(
        built, choice="on", device=CPU, trial=lambda: torch.autograd.grad(built(values).sum(), list(built.parameters()))
    )
    assert is_built or "cannot build" in caplog.text
    assert list(built.state_dict()) == names
    torch.testing.assert_close(built(values), plain(values), rtol=1e-5, atol=1e-6)


def unet() -> tuple[nn.Module, tuple[type[nn.Module], ...], list[object]]:
    network = PromptUNet(
        in_channels=5,
        out_channels=2,
        channels=(8, 16),
        blocks_per_level=1,
        attention_levels=(1,),
        attention_head_channels=8,
        embedding_dimension=6,
        prompt_block="upsample",
        num_components=2,
    )
    level, embedding = torch.tensor([1, 7]), torch.rand(2, 6, 1, 1, 1)
    return network, diffusion_network.BLOCKS, [torch.rand(2, 5, 6, 4, 8), level, embedding]


def autoencoder() -> tuple[nn.Module, tuple[type[nn.Module], ...], list[object]]:
    config = AutoencoderConfig(widths=(4, 8), latent_channels=4, codebook_size=16, patch_voxels=16)
    built = build_autoencoder(config)
    return nn.Sequential(built.encoder, built.decoder), autoencoder_network.BLOCKS, [torch.rand(1, 1, 8, 12, 16)]


def segmentation(name: str) -> tuple[nn.Module, tuple[type[nn.Module], ...], list[object]]:
    channels = (4, 8) if name == "unet" else (4, 8, 8)
    config = SegmentationConfig(network=name, patch_voxels=32, channels=channels)
    return build_segmentation_network(config, 3), segmentation_network.BLOCKS, [torch.rand(1, 1, 32, 32, 32)]


def gradients(network: nn.Module, inputs: list[object]) -> list[Tensor]:
    found = network(*inputs)
    loss = sum(part.square().sum() for part in found) if isinstance(found, list | tuple) else found.square().sum()
    return list(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True))


@pytest.mark.parametrize("name", ["unet", "autoencoder", "segmentation unet", "dynunet"])
def test_gradients_are_equal_and_the_forward_pass_is_made_twice(name: str) -> None:
    torch.manual_seed(0)
    if name == "unet":
        plain, blocks, inputs = unet()
    elif name == "autoencoder":
        plain, blocks, inputs = autoencoder()
    else:
        plain, blocks, inputs = segmentation(name.split()[-1])
    with torch.no_grad():
        for parameter in plain.parameters():  # what starts at zero passes no gradient on
            parameter.add_(0.05 * torch.randn(parameter.shape))
    spared = copy.deepcopy(plain)
    names = list(spared.state_dict())
    assert checkpoint_activations(spared, blocks=blocks) > 2
    assert list(spared.state_dict()) == names
    with FlopCounterMode(display=False) as plain_counter:
        expected = gradients(plain, inputs)
    with FlopCounterMode(display=False) as counter:
        found = gradients(spared, inputs)
    for one, other in zip(found, expected, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    # four passes' work instead of three, but for what lies between the blocks
    assert 1.05 < counter.get_total_flops() / plain_counter.get_total_flops() < 1.4


def test_what_is_kept_for_the_way_back_is_the_blocks_inputs() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def forward(self, values: Tensor) -> Tensor:
            for _ in range(10):
                values = (self.weight * values).sin()
            return values

    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    network = nn.Sequential(Block(), Block())
    values = torch.rand(7, 5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(values)
        many = sum(kept)
        kept.clear()
        checkpoint_activations(network, blocks=(Block,))
        network(values)
    assert sum(kept) == 2 * 35
    assert many > 2 * 10 * 35
