"""DiffTumor (Chen et al., CVPR 2024, "Towards Generalizable Tumor Synthesis"): one latent diffusion per lesion type.

The latents, the surroundings and the mask are those of stage 2; there is no prompt, so every lesion type has a model
of its own. A run's folder holds one diffusion run a type, and a card that says which there are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from torch import nn

from promptlesion.autoencoder.autoencoder import load_autoencoder
from promptlesion.autoencoder.config import AutoencoderConfig
from promptlesion.baselines.config import DiffTumorConfig
from promptlesion.data.cache import CachedCase
from promptlesion.data.lesion_instances import LesionInstance
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.diffusion import denoiser
from promptlesion.diffusion.train import train_diffusion
from promptlesion.masks.placement import PlacedLesion
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, SynthesizerCard, facts_of_run, load_synthesizer
from promptlesion.training.atomic import read_json, write_json
from promptlesion.training.checkpoint import CheckpointError
from promptlesion.training.device import resolve_device
from promptlesion.training.hardware import DEFAULT_HARDWARE, HardwareConfig
from promptlesion.training.launch import is_main_process
from promptlesion.training.run import Run, RunOptions

DIFFTUMOR = "difftumor"
CARD = Path("checkpoint") / "card.json"


@dataclass(frozen=True)
class OneTypeCase(CachedCase):
    """A prepared case whose lesions of all other types are passed over; the one type is number 0."""

    type_index: int

    @cached_property
    def lesions(self) -> tuple[LesionInstance, ...]:
        """The lesions of the one type."""
        return tuple(
            replace(lesion, type_index=0) for lesion in super().lesions if lesion.type_index == self.type_index
        )

    def __reduce__(self) -> tuple[type["OneTypeCase"], tuple[str, str, Path, int]]:  # type: ignore[override]
        """Pickle the fields, not what has been read since."""
        return OneTypeCase, (self.name, self.subject, self.folder, self.type_index)


def train_difftumor(
    data: TrainingData,
    *,
    autoencoder_run: Path,
    config: DiffTumorConfig,
    options: RunOptions,
    types: Sequence[str] = (),
) -> Run:
    """Train one model for every lesion type, or go on with an interrupted run, which is finished when all are.

    Args:
        options: of the run; `OUT/TYPE` is the diffusion run of a type.
        types: names of the types to train now; none means all.

    Raises:
        ValueError: an unknown type, or one of which the training cases have no lesion.
    """
    spec, out = data.spec, options.out
    names = [lesion.name for lesion in spec.lesions]
    asked = list(types) or names
    unknown = sorted(set(asked) - set(names))
    if unknown:
        raise ValueError(f"--type {unknown[0]}: expected one of the lesion types {', '.join(names)}")
    autoencoder = load_autoencoder(autoencoder_run, resolve_device(options.device))
    inputs = {"autoencoder": str(autoencoder.card["weights_sha256"]), "lesion types": ", ".join(names)}
    run = data.open_run(options, stage=DIFFTUMOR, config=config, inputs=inputs)
    if run.is_finished:
        return run
    for name in asked:
        index = names.index(name)
        cases = [OneTypeCase(case.name, case.subject, case.folder, index) for case in data.cases]
        if not any(case.lesions for case in cases):
            raise ValueError(
                f"{name}: expected a lesion of it in the {len(cases)} training cases; found none. "
                "Name the types to train with --type"
            )
        train_diffusion(
            TrainingData(cases, spec.model_copy(update={"lesions": (spec.lesions[index],)}), data.labels),
            autoencoder_run=autoencoder_run,
            config=config.as_diffusion(),
            options=replace(options, out=out / name),
            method=DIFFTUMOR,
        )
        trained = _write_card(run, data)
        if trained == names:
            run.finish()
    return run


def _write_card(run: Run, data: TrainingData) -> list[str]:
    """Write the card of all models that are finished, and return their types in prompt order."""
    hashes = {
        lesion.name: str(read_json(run.folder / lesion.name / CARD)["weights_sha256"])
        for lesion in data.spec.lesions
        if (run.folder / lesion.name / CARD).is_file()
    }
    card = {
        **run.facts(DIFFTUMOR),
        **data.facts(data.statistics),
        "models": hashes,
        "weights_sha256": hashlib.sha256("".join(hashes.values()).encode()).hexdigest(),
    }
    if is_main_process():
        write_json(run.folder / CARD, card)
    return list(hashes)


def build_networks(config: DiffTumorConfig, *, autoencoder: AutoencoderConfig, num_types: int) -> dict[str, nn.Module]:
    """Build the U-Net of one lesion type, by name; there are as many as types, all alike."""
    (network,) = denoiser.build_networks(config.as_diffusion(), autoencoder=autoencoder, num_types=1).values()
    return {"DiffTumor U-Net, one for every lesion type": network}


@dataclass(frozen=True)
class DiffTumorSynthesizer:
    """Paints every lesion with the model of its asked-for type."""

    card: SynthesizerCard
    models: Mapping[int, PromptLesionSynthesizer]
    """By the type's place in prompt order; types that were not trained are missing."""

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`.

        Raises:
            ValueError: a type that has no model.
        """
        painted: dict[int, np.ndarray] = {}
        for type_index in sorted(set(types)):
            chosen = [index for index, asked in enumerate(types) if asked == type_index]
            boxes = self._model(type_index).paint(
                [images[index] for index in chosen],
                [lesions[index] for index in chosen],
                types=[0] * len(chosen),
                seeds=[seeds[index] for index in chosen],
            )
            painted.update(zip(chosen, boxes, strict=True))
        return [painted[index] for index in range(len(lesions))]

    def _model(self, type_index: int) -> PromptLesionSynthesizer:
        if type_index not in self.models:
            names = [lesion.name for lesion in self.card.spec.lesions]
            there = ", ".join(names[index] for index in self.models)
            raise ValueError(
                f"{names[type_index]}: expected a DiffTumor model of this lesion type; found those of {there}. "
                "`train diffusion --method difftumor` trains the others"
            )
        return self.models[type_index]


def load_difftumor(
    run_folder: Path, config: SynthesisConfig, *, device: str = "auto", hardware: HardwareConfig = DEFAULT_HARDWARE
) -> DiffTumorSynthesizer:
    """Read the models of all types that are trained, and the autoencoder they share.

    Raises:
        CheckpointError: no model is trained, or one is not the card's.
    """
    card = read_json(run_folder / CARD)
    spec = DatasetSpec.model_validate(card["dataset"])
    models: dict[int, PromptLesionSynthesizer] = {}
    for index, lesion in enumerate(spec.lesions):
        if lesion.name not in card["models"]:
            continue
        model = load_synthesizer(run_folder / lesion.name, config, device=device, hardware=hardware)
        if model.card.model_hash != card["models"][lesion.name]:
            raise CheckpointError(
                f"{run_folder / lesion.name}: expected the model {run_folder / CARD} names; found another one"
            )
        if models:
            shared = next(iter(models.values())).model.autoencoder
            model = replace(model, model=replace(model.model, autoencoder=shared))
        models[index] = model
    cards, beneath = zip(*((model.card, model.model.autoencoder.card) for model in models.values()), strict=True)
    own = SynthesizerCard(
        **facts_of_run(card, *beneath, method=DIFFTUMOR, source=run_folder),
        device=cards[0].device,
        edge_mm=max(each.edge_mm for each in cards),
        max_extent_mm=min(each.max_extent_mm for each in cards),
        finest_mm=max(each.finest_mm for each in cards),
        batch_size=min(each.batch_size for each in cards),
    )
    return DiffTumorSynthesizer(own, models)
