"""The methods by name: training on real scans alone, and with lesions of each method that paints."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

from promptlesion.baselines.copy_paste import train_copy_paste
from promptlesion.baselines.difftumor import train_difftumor
from promptlesion.baselines.intensity import train_intensity
from promptlesion.baselines.med_ddpm import train_med_ddpm
from promptlesion.config import Config
from promptlesion.data.cache import CachedCase
from promptlesion.data.prepared import PreparedDataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.trained_on import TrainedOn, check_unseen
from promptlesion.diffusion.train import train_diffusion
from promptlesion.synthesis.guidance_fit import fit_guidance
from promptlesion.training.checkpoint import read_card
from promptlesion.training.run import Run

REAL, PROMPTLESION = "real", "promptlesion"
METHODS = (
    REAL,
    "copy-paste",
    "intensity",
    "difftumor",
    "med-ddpm",
    "promptlesion-onehot",
    "promptlesion-transformer",
)
LATENT_METHODS = ("difftumor", "promptlesion-onehot", "promptlesion-transformer")
"""Those that need an autoencoder."""
_PROMPT_ENCODERS = {"promptlesion-onehot": "one-hot", "promptlesion-transformer": "mask-transformer"}


class _Common(TypedDict):
    """What every method's training takes."""

    train_cases: Sequence[CachedCase]
    spec: DatasetSpec
    labels: dict[str, int]
    out: Path
    seed: int
    device: str


def parse_methods(text: str) -> tuple[str, ...]:
    """Read `real,copy-paste` and the like; real comes first, as what all others are compared with.

    Raises:
        ValueError: an unknown method, one named twice, or no `real` among them.
    """
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in METHODS]
    if unknown or len(set(names)) < len(names) or REAL not in names:
        found = f"{unknown[0]!r}" if unknown else text
        raise ValueError(
            f"--methods: expected {REAL} and others of {', '.join(METHODS)}, each once, with commas; found {found}"
        )
    return tuple(sorted(names, key=METHODS.index))


def method_config(method: str, config: Config) -> Config:
    """Return the configuration with what makes the method: its prompt encoder, or what it cannot do switched off.

    Without a prompt there is no guidance; Med-DDPM sees neither the healthy latent nor the scan's noise.
    """
    if method == PROMPTLESION:
        return config
    if method in _PROMPT_ENCODERS:
        diffusion = config.diffusion.model_copy(update={"prompt_encoder": _PROMPT_ENCODERS[method]})
        return config.model_copy(update={"diffusion": diffusion})
    changed: dict[str, object] = {"guidance_scale": 1.0}
    if method == "med-ddpm":
        changed |= {"init": "noise", "keep_noise": False, "reinject_background": False}
        changed["num_steps"] = min(config.synthesis.num_steps, config.med_ddpm.num_levels)
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update=changed)})


def patch_voxels(method: str, config: Config) -> int | None:
    """Return the edge of the patch that a method samples; none where it has no network."""
    if method == "med-ddpm":
        return config.med_ddpm.patch_voxels
    if method == "difftumor":
        return config.difftumor.patch_voxels
    return config.diffusion.patch_voxels if method in LATENT_METHODS else None


def check_autoencoder(method: str, run_folder: Path | None) -> None:
    """Make sure that a method has the autoencoder it needs.

    Raises:
        ValueError: it is missing, or there is one for a method that works on voxels.
    """
    is_latent = method in (PROMPTLESION, *LATENT_METHODS)
    if is_latent and run_folder is None:
        raise ValueError(f"--autoencoder: expected a finished run of stage 1 for the method {method}; found none")
    if not is_latent and run_folder is not None:
        raise ValueError(f"--autoencoder {run_folder}: expected none, as {method} works on voxels; found one")


def train_method(
    method: str,
    prepared: PreparedDataset,
    *,
    autoencoder_run: Path | None,
    config: Config,
    out: Path,
    seed: int,
    device: str,
    types: Sequence[str] = (),
) -> Run:
    """Train a method that paints on the training subjects, or go on with an interrupted run.

    Args:
        method: one of `METHODS` but `real`, or `promptlesion`: with the prompt encoder of the configuration.
        prepared: the dataset.
        autoencoder_run: finished stage 1 of the same training subjects; the latent methods alone have one.
        config: of all stages.
        out: the run's folder.
        seed: of the training.
        device: `auto` or a device's name.
        types: of DiffTumor the lesion types to train models of; by default all.

    Raises:
        ValueError: an autoencoder is missing, or there is one for a method that works on voxels, or it was trained on
            subjects that validate or test now.
    """
    resolved = method_config(method, config)
    common: _Common = {
        "train_cases": prepared.train,
        "spec": prepared.dataset.spec,
        "labels": prepared.dataset.labels,
        "out": out,
        "seed": seed,
        "device": device,
    }
    check_autoencoder(method, autoencoder_run)
    if autoencoder_run is not None:
        card = read_card(autoencoder_run / "checkpoint", stage="autoencoder")
        check_unseen(TrainedOn.of_cards(card), prepared.dataset, prepared.split, source=autoencoder_run)
        if method == "difftumor":
            return train_difftumor(
                config=resolved.difftumor,
                autoencoder_run=autoencoder_run,
                types=types,
                hardware=config.hardware,
                **common,
            )
        return train_diffusion(
            config=resolved.diffusion,
            autoencoder_run=autoencoder_run,
            hardware=config.hardware,
            on_trained=partial(
                fit_guidance,
                out,
                prepared.part("train"),
                resolved.synthesis,
                seed=seed,
                device=device,
                hardware=config.hardware,
            ),
            **common,
        )
    if method == "copy-paste":
        return train_copy_paste(config=resolved.copy_paste, **common)
    if method == "intensity":
        return train_intensity(config=resolved.intensity, **common)
    return train_med_ddpm(config=resolved.med_ddpm, hardware=config.hardware, **common)
