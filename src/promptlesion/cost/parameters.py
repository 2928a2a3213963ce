"""How many parameters every network of a configuration has, module by module, without data and without memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from monai.networks.layers.simplelayers import SkipConnection
from torch import nn

from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.autoencoder.discriminator import build_discriminators
from promptlesion.config import Config
from promptlesion.diffusion.network import PromptInjection
from promptlesion.diffusion.prompt_block import PROMPT_BLOCKS
from promptlesion.methods import method_named, trainable_names
from promptlesion.prompt.encoders import MaskTransformerPrompt
from promptlesion.prompt.mask_transformer import MaskTransformer
from promptlesion.segmentation.network import build_segmentation_network

PAPER_NUM_TYPES = 5
"""Calcified and non-calcified plaque; tumours of liver, kidney and pancreas."""

_OPENED = (nn.ModuleList, PromptInjection, MaskTransformerPrompt, MaskTransformer, SkipConnection)
"""Modules of which the parts are listed instead."""


@dataclass(frozen=True)
class ModuleParameters:
    """One line: a module, its class, its trained parameters, and the figures it keeps without training them."""

    name: str
    kind: str
    parameters: int
    buffers: int


@dataclass(frozen=True)
class NetworkParameters:
    """A network and its modules, in the order they are built."""

    name: str
    modules: tuple[ModuleParameters, ...]

    @property
    def total(self) -> int:
        """All trained parameters."""
        return sum(module.parameters for module in self.modules)

    @property
    def prompt_block_share(self) -> float:
        """Share of the parameters that the PromptGenBlocks have."""
        kinds = {block.__name__ for block in PROMPT_BLOCKS}
        blocks = [module.parameters for module in self.modules if module.kind in kinds]
        return sum(blocks) / self.total

    @property
    def injection_share(self) -> float:
        """Share of the PromptGenBlocks and of the residual blocks that work their prompt into the features."""
        parts = [module.parameters for module in self.modules if module.name.startswith("injections.")]
        return sum(parts) / self.total


def count_parameters(config: Config, *, num_types: int = PAPER_NUM_TYPES) -> list[NetworkParameters]:
    """Count the parameters of every network of a configuration, stage 3's with a label for each type and none."""
    with torch.device("meta"):
        return [
            NetworkParameters(name, tuple(_modules(network)))
            for name, network in build_networks(config, num_types=num_types).items()
        ]


def build_networks(config: Config, *, num_types: int) -> dict[str, nn.Module]:
    """Build every network of a configuration, untrained: stage 1, every method, stage 3 for voxels of 1 mm."""
    networks = autoencoder_networks(config.autoencoder)
    for name in trainable_names():
        networks |= method_named(name).build_networks(config, num_types=num_types)
    segmentation = build_segmentation_network(config.segmentation, num_types + 1, spacing_mm=(1.0, 1.0, 1.0))
    return {**networks, "segmentation": segmentation}


def autoencoder_networks(config: AutoencoderConfig) -> dict[str, nn.Module]:
    """Build what stage 1 trains, untrained."""
    return {"autoencoder": build_autoencoder(config), "discriminators": build_discriminators(config)}


def num_parameters(build: Callable[[], Mapping[str, nn.Module]]) -> int:
    """Count the trained parameters of networks, which are built without memory."""
    with torch.device("meta"):
        return sum(weight.numel() for network in build().values() for weight in network.parameters())


def _modules(network: nn.Module) -> Iterator[ModuleParameters]:
    """Yield the parts of a network, and the parts of those that only hold others together."""
    for name, module in network.named_children():
        if _is_opened(module):
            for part in _modules(module):
                yield replace(part, name=f"{name}.{part.name}".replace(".submodule", ""))
        else:
            yield ModuleParameters(
                name,
                type(module).__name__,
                sum(parameter.numel() for parameter in module.parameters()),
                sum(buffer.numel() for buffer in module.buffers()),
            )


def _is_opened(module: nn.Module) -> bool:
    return isinstance(module, _OPENED) or any(isinstance(part, SkipConnection) for part in module.children())
