"""Trained weights as safetensors, with a JSON card that says what they are. Nothing is unpickled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from promptlesion.training.atomic import write_json, written_whole


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another stage than asked for."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and the card that explains them."""

    card: dict[str, object]
    weights: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the state dict of one of the networks in the checkpoint."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, *, card: Mapping[str, object], parts: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write `weights.safetensors`, then `card.json`, whose presence means that the checkpoint is complete.

    `card` says at least `stage`; the hash of the weights and the versions of the software are added.
    """
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
    write_json(folder / "card.json", {**card, "versions": versions, "weights_sha256": file_hash(weights_path)})


def load_checkpoint(folder: Path, *, stage: str) -> Checkpoint:
    """Read a checkpoint of the given stage.

    Raises:
        CheckpointError: no finished checkpoint, another stage's, or weights that do not match their card.
    """
    card_path, weights_path = folder / "card.json", folder / "weights.safetensors"
    if not card_path.is_file():
        raise CheckpointError(f"{folder}: expected a finished {stage} checkpoint (card.json); found none")
    try:
        card: dict[str, object] = json.loads(card_path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{card_path}: expected JSON; found {error}") from error
    if card.get("stage") != stage:
        raise CheckpointError(f"{folder}: expected a checkpoint of stage {stage!r}; found {card.get('stage')!r}")
    if not weights_path.is_file() or file_hash(weights_path) != card.get("weights_sha256"):
        raise CheckpointError(
            f"{weights_path}: expected the SHA-256 stated in card.json; the file differs or is missing"
        )
    return Checkpoint(card=card, weights=load_file(weights_path))
