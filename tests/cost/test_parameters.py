"""Every network is counted as it would be built, module by module, and none is built."""

import pytest
import torch
from torch import nn

from promptlesion.config import resolve_config
from promptlesion.cost.parameters import NetworkParameters, build_networks, count_parameters


def counted(preset: str, *settings: str, num_types: int = 5) -> dict[str, NetworkParameters]:
    config = resolve_config(preset=preset, settings=settings)
    return {network.name: network for network in count_parameters(config, num_types=num_types)}


def test_the_parts_add_up_to_the_networks_that_would_be_built() -> None:
    networks = dict(build_networks(resolve_config(preset="demo"), num_types=2))
    counts = counted("demo", num_types=2)
    assert list(networks) == list(counts)
    for name, network in networks.items():
        assert counts[name].total == sum(parameter.numel() for parameter in network.parameters()), name
        buffers = sum(buffer.numel() for buffer in network.buffers(recurse=True))
        own = sum(buffer.numel() for buffer in network.buffers(recurse=False))
        assert sum(module.buffers for module in counts[name].modules) == buffers - own, name
        assert len({module.name for module in counts[name].modules}) == len(counts[name].modules)


def test_counting_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: set[torch.device] = set()
    count = nn.Module.parameters

    def recorded(module: nn.Module, recurse: bool = True) -> object:
        found = list(count(module, recurse))
        devices.update(parameter.device for parameter in found)
        return iter(found)

    monkeypatch.setattr(nn.Module, "parameters", recorded)
    counted("paper")
    assert devices == {torch.device("meta")}


def test_the_paper_preset_has_the_papers_table_and_light_prompt_blocks() -> None:
    counts = counted("paper")
    transformer = counts["prompt encoder (mask-transformer)"]
    assert [module.parameters for module in transformer.modules] == [2_880, 43_008, 43_008, 43_008, 4_288]
    network = counts["diffusion U-Net"]
    assert 0 < network.prompt_block_share <= 0.05
    assert network.prompt_block_share < network.injection_share < 1
    codebook = next(module for module in counts["autoencoder"].modules if module.name == "quantizer")
    assert codebook.parameters == 0
    assert codebook.buffers >= 16_384 * 8


def test_without_prompt_there_is_no_encoder_and_no_injection() -> None:
    counts = counted("paper", "diffusion.prompt_encoder=none")
    assert not any(name.startswith("prompt encoder") for name in counts)
    assert counts["diffusion U-Net"].injection_share == 0
