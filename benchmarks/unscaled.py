"""Copies a run of stage 1 without the scale of its latents: for the ablation, how much unit variance matters.

python benchmarks/unscaled.py RUN COPY
"""

import sys
from pathlib import Path

import torch

from promptlesion.training.checkpoint import load_checkpoint, save_checkpoint


def main(run: Path, copy: Path) -> None:
    """Write the copy's checkpoint: the same networks, a mean of 0 and a standard deviation of 1."""
    checkpoint = load_checkpoint(run / "checkpoint", stage="autoencoder")
    weights = checkpoint.part("autoencoder")
    weights["latent_mean"] = torch.zeros_like(weights["latent_mean"])
    weights["latent_std"] = torch.ones_like(weights["latent_std"])
    (copy / "checkpoint").mkdir(parents=True, exist_ok=True)
    save_checkpoint(copy / "checkpoint", card=checkpoint.card, parts={"autoencoder": weights})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
