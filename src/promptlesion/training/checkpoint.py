"""Trained weights as safetensors, with a JSON card that says what they are. Nothing is unpickled."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from promptlesion.training.atomic import file_hash, write_json, written_whole
from promptlesion.training.descent import Network, frozen
from promptlesion.training.device import place
from promptlesion.training.launch import is_main_process

FORMAT_VERSION = 2
"""Of card and weights. 1 had no version, and window, spacing and lesion types in `dataset` alone."""
_LONGEST_LINE, _MOST_LINES = 300, 3
"""Of what torch says of weights that do not fit."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another stage than asked for."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the card that explains them."""

    card: dict[str, object]
    weights: dict[str, Tensor]
    path: Path
    """Where the weights lie."""

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the state dict of one of the networks in the checkpoint."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}

    def restore(self, network: Network, *, part: str, device: torch.device) -> Network:
        """Give a network the weights of one of the networks in the checkpoint, frozen and on the device.

        Raises:
            CheckpointError: the weights are those of another network.
        """
        load_weights(network, self.part(part), source=self.path)
        return place(frozen(network), device)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Give a network its weights, or say which do not fit.

    Raises:
        CheckpointError: tensors are missing, left over, or of another shape.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        problems = [shorten(line, _LONGEST_LINE) for line in str(error).splitlines()[1 : 1 + _MOST_LINES]]
        raise CheckpointError(
            f"{source}: expected the weights of the {type(network).__name__} the configuration describes; "
            f"found {' '.join(problems)}"
        ) from error


def differences(found: Mapping[str, object], expected: Mapping[str, object], prefix: str = "") -> list[str]:
    """Name every entry of `expected` that `found` holds with another value, or not at all, with both values.

    Both hold JSON types alone; what `found` says beyond that does not matter.
    """
    result: list[str] = []
    for name, value in expected.items():
        other = found.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            result += differences(other, value, f"{prefix}{name}.")
        elif other != value:
            result.append(f"{prefix}{name} ({other!r} instead of {value!r})")
    return result


def save_checkpoint(folder: Path, *, card: Mapping[str, object], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write `weights.safetensors`, then `card.json`, whose presence means that the checkpoint is complete.

    `card` says at least `stage`; the hash of the weights and the versions of software and format are added. Of several
    processes the main one alone writes.
    """
    if not is_main_process():
        return
    flat = {
        f"{part}.{name}": tensor.detach().cpu().contiguous().clone()
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }
    weights_path = folder / "weights.safetensors"
    (folder / "card.json").unlink(missing_ok=True)
    with written_whole(weights_path) as temporary:
        save_file(flat, temporary)
    versions = {name: version(name) for name in ("promptlesion", "torch", "monai")}
    content = {
        "format_version": FORMAT_VERSION,
        **card,
        "versions": versions,
        "weights_sha256": file_hash(weights_path),
    }
    write_json(folder / "card.json", content)


def read_card(folder: Path, *, stage: str) -> dict[str, object]:
    """Read what a checkpoint of the given stage says of itself; its weights are not looked at.

    Raises:
        CheckpointError: no finished checkpoint, another stage's, or one of a format that is not known yet.
    """
    card_path = folder / "card.json"
    if not card_path.is_file():
        raise CheckpointError(f"{folder}: expected a finished {stage} checkpoint (card.json); found none")
    try:
        card: dict[str, object] = json.loads(card_path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{card_path}: expected JSON; found {error}") from error
    written_in = card.get("format_version", 1)
    if not isinstance(written_in, int) or written_in > FORMAT_VERSION:
        raise CheckpointError(
            f"{card_path}: expected a format_version up to {FORMAT_VERSION}; found {written_in!r}, written by "
            f"versions {card.get('versions')}. A newer promptlesion reads it"
        )
    if card.get("stage") != stage:
        raise CheckpointError(f"{folder}: expected a checkpoint of stage {stage!r}; found {card.get('stage')!r}")
    return card


def load_checkpoint(folder: Path, *, stage: str) -> Checkpoint:
    """Read a checkpoint of the given stage.

    Raises:
        CheckpointError: as `read_card`, or weights that do not match their card.
    """
    card, weights_path = read_card(folder, stage=stage), folder / "weights.safetensors"
    if not weights_path.is_file() or file_hash(weights_path) != card.get("weights_sha256"):
        raise CheckpointError(
            f"{weights_path}: expected the SHA-256 stated in card.json; the file differs or is missing"
        )
    return Checkpoint(card=card, weights=load_file(weights_path), path=weights_path)
