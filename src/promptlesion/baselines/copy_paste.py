"""Copy-paste of real lesions into other places (after TumorCP: Yang et al., MICCAI 2021, arXiv 2107.09843).

There is no network: what is kept of the training scans are their lesions, each with its mask and its voxels. A lesion
is turned, mirrored, scaled and elastically deformed, mask and voxels together, given another gamma and a blur, and put
into its host in another place of the same or of another training scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from scipy import ndimage

from promptlesion.baselines.config import CopyPasteConfig
from promptlesion.baselines.hand_painting import card_without_network, finer_noise, from_inside, soft_share
from promptlesion.data.boxes import offsets_mm
from promptlesion.data.cache import CachedCase
from promptlesion.data.lesion_instances import LesionInstance, cut_instance
from promptlesion.data.spec import DatasetSpec
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.masks.real_shape import draw_real_shape
from promptlesion.masks.shape_bank import BankShape, bank_of, cut_with_voxels
from promptlesion.synthesis.synthesizer import SynthesizerCard
from promptlesion.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import numpy_generator

COPY_PASTE = "copy-paste"
_LESIONS_KEY = "lesions"
_DEFORMATION = 0.25


def train_copy_paste(data: TrainingData, *, config: CopyPasteConfig, options: RunOptions) -> Run:
    """Cut the lesions out of the training cases and keep them as a run, which takes seconds."""
    spec = data.spec
    run = data.open_run(options, stage=COPY_PASTE, config=config, inputs={"lesions": spec.model_dump_json()})
    if run.is_finished:
        return run
    cut = {
        f"{lesion_type.name}.{number:04d}": shape
        for index, lesion_type in enumerate(spec.lesions)
        for number, shape in enumerate(_cut_lesions(data, index, most=config.max_lesions_per_type))
    }
    save_checkpoint(
        run.checkpoint_folder,
        card={
            **run.facts(COPY_PASTE),
            **data.facts(data.statistics),
            _LESIONS_KEY: {name: shape.case for name, shape in cut.items()},
        },
        parts={
            "hu": {name: torch.from_numpy(_hu(shape).astype(np.int16)) for name, shape in cut.items()},
            "mask": {name: torch.from_numpy(shape.mask) for name, shape in cut.items()},
        },
    )
    run.finish()
    return run


def _cut_lesions(data: TrainingData, type_index: int, *, most: int) -> list[BankShape]:
    """Cut the lesions of a type, evenly chosen where there are too many; one that the scan cuts off only for want."""
    found = [(case, lesion) for case in data.cases for lesion in case.lesions if lesion.type_index == type_index]
    whole = [(case, lesion) for case, lesion in found if not _is_cut_off(case, lesion)]
    chosen = whole or found
    places = np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int).tolist()
    cut = []
    for case, lesion in (chosen[place] for place in places):
        box, mask = cut_instance(case.labels, lesion, data.spec.lesions[type_index].label, margin_voxels=(0, 0, 0))
        cut.append(cut_with_voxels(case.name, mask, np.asarray(case.image[box]), data.spec.spacing_mm))
    return cut


def _is_cut_off(case: CachedCase, lesion: LesionInstance) -> bool:
    return any(
        side.start == 0 or side.stop == length
        for side, length in zip(lesion.bounding_box, case.labels.shape, strict=True)
    )


def _hu(shape: BankShape) -> np.ndarray:
    if shape.hu is None:
        raise ValueError(f"{shape.case}: expected a lesion with its voxels; found a mask alone")
    return shape.hu


@dataclass(frozen=True)
class CopyPasteSynthesizer:
    """Pastes the lesion that a mask was cut with; into any other mask the voxels of one of like size."""

    card: SynthesizerCard
    config: CopyPasteConfig

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`.

        Raises:
            ValueError: a type of which there is no training lesion.
        """
        return [
            self._paint(image, lesion, type_index, numpy_generator(seed, COPY_PASTE))
            for image, lesion, type_index, seed in zip(images, lesions, types, seeds, strict=True)
        ]

    def _paint(
        self, image: Volume, lesion: PlacedLesion, type_index: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "_ _ _"]:
        hu = lesion.hu if type_index == lesion.type_index else None
        if hu is None:
            hu = self._voxels_of_another(image, lesion, type_index, generator)
        hu = from_inside(self._transformed(hu, lesion, generator), lesion.mask, spacing_mm=image.spacing_mm)
        if self.config.transform_probability > generator.random():
            blur_mm = generator.uniform(0, self.config.blur_voxels) * min(self.card.spec.spacing_mm)
            hu = ndimage.gaussian_filter(hu, [blur_mm / side for side in image.spacing_mm], mode="nearest")
        scan = image.array[lesion.box].astype(np.float32)
        hu = hu + finer_noise(
            scan, lesion.mask, spacing_mm=image.spacing_mm, kept_mm=self.card.spec.spacing_mm, generator=generator
        )
        softness_mm = self.config.edge_softness_voxels * min(self.card.spec.spacing_mm)
        share = soft_share(lesion.mask, softness_mm=softness_mm, spacing_mm=image.spacing_mm, edge_mm=self.card.edge_mm)
        # the lesion's own edge voxels have the blur of the scanner in them already
        painted: np.ndarray = scan + np.where(lesion.mask, 1.0, share).astype(np.float32) * (hu - scan)
        return painted

    def _transformed(
        self, hu: Float32[np.ndarray, "x y z"], lesion: PlacedLesion, generator: np.random.Generator
    ) -> Float32[np.ndarray, "x y z"]:
        """Return the lesion with another gamma, or as it is; its least and its most HU stay."""
        is_transformed = self.config.transform_probability > generator.random()
        gamma = float(np.exp(generator.uniform(*np.log(self.config.gamma))))
        low, high = float(hu[lesion.mask].min()), float(hu[lesion.mask].max())
        if not is_transformed or high == low:
            return hu
        changed: np.ndarray = low + (high - low) * ((hu - low) / (high - low)).clip(0, 1) ** np.float32(gamma)
        return changed

    def _voxels_of_another(
        self, image: Volume, lesion: PlacedLesion, type_index: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "x y z"]:
        """Fill a mask with a lesion of like size, whose outermost voxels go on where the mask reaches beyond it."""
        name = self.card.spec.lesions[type_index].name
        if name not in self.card.own_lesions:
            raise ValueError(f"{name}: expected a lesion of it in the training cases to paste; found none")
        shape, _ = draw_real_shape(
            self.card.own_lesions[name], diameter_mm=lesion.diameter_mm, deformation=_DEFORMATION, generator=generator
        )
        offsets = offsets_mm(lesion.box, lesion.center_voxel, image.affine)[lesion.mask]
        hu = np.zeros(lesion.mask.shape, dtype=np.float32)
        hu[lesion.mask] = shape.hu_at(offsets, radius_mm=lesion.diameter_mm / 2)
        return hu


def load_copy_paste(run_folder: Path, *, device: str = "auto") -> CopyPasteSynthesizer:
    """Read the lesions of a finished run.

    Raises:
        CheckpointError: the run is not finished or damaged.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage=COPY_PASTE)
    spec = DatasetSpec.model_validate(checkpoint.card["dataset"])
    cases, hu, masks = checkpoint.card[_LESIONS_KEY], checkpoint.part("hu"), checkpoint.part("mask")
    if not isinstance(cases, dict) or not set(cases) == set(hu) == set(masks):
        raise CheckpointError(f"{run_folder}: expected voxels and mask of every lesion the card names; found others")
    lesions: dict[str, list[BankShape]] = {}
    for name, case in cases.items():
        cut = cut_with_voxels(str(case), masks[name].numpy(), hu[name].numpy(), spec.spacing_mm)
        lesions.setdefault(name.rpartition(".")[0], []).append(cut)
    banks = {name: bank_of(found) for name, found in lesions.items()}
    config = CopyPasteConfig.model_validate(checkpoint.card["config"])
    card = card_without_network(checkpoint.card, COPY_PASTE, device=device, source=run_folder)
    return CopyPasteSynthesizer(replace(card, own_lesions=banks), config)
