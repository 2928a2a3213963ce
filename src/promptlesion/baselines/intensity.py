"""Hand-made lesions: one level of HU and a texture, under a soft edge; what one does without any training.

Level, spread and grain of the texture are measured on the training lesions of each type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from promptlesion.baselines.config import IntensityConfig
from promptlesion.baselines.hand_painting import card_without_network, finer_noise, soft_share
from promptlesion.data.lesion_instances import cut_instance
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.masks.placement import PlacedLesion
from promptlesion.synthesis.synthesizer import SynthesizerCard
from promptlesion.training.checkpoint import load_checkpoint, save_checkpoint
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import numpy_generator

INTENSITY = "intensity"
_MOST_LESIONS = 200
_MOST_SIGMAS, _SIGMA_PER_DEVIATION = 3.0, 1.4826
_LEAST = 0.01
"""Correlation that counts as none."""
_FALL = (0.05, 3.0)
"""Of the correlation's logarithm between one voxel and two: grains of four voxels, and of half a voxel."""
_SMALL_SHARE = 0.05
"""Of a type's range of HU: the spread where one training lesion alone tells none."""


def train_intensity(data: TrainingData, *, config: IntensityConfig, options: RunOptions) -> Run:
    """Measure the lesions of the training cases and keep the figures as a run, which takes seconds."""
    spec = data.spec
    run = data.open_run(options, stage=INTENSITY, config=config, inputs={"lesions": spec.model_dump_json()})
    if run.is_finished:
        return run
    statistics = data.statistics
    known = {name: found for name, found in statistics.types.items() if found.mean_hu}
    textures = {
        lesion_type.name: _measure_texture(data, index)
        for index, lesion_type in enumerate(spec.lesions)
        if lesion_type.name in known
    }
    save_checkpoint(
        run.checkpoint_folder,
        card={**run.facts(INTENSITY), **data.facts(statistics)},
        parts={
            # mean, contrast and spread of every lesion, beside the card so that their hash is the method's
            "lesions": {
                name: torch.tensor([found.mean_hu, found.contrast_hu, found.std_hu], dtype=torch.float64)
                for name, found in known.items()
            },
            "texture": {name: torch.from_numpy(spreads) for name, (spreads, _) in textures.items()},
            "grain": {name: torch.from_numpy(grain) for name, (_, grain) in textures.items()},
        },
    )
    run.finish()
    return run


def _measure_texture(data: TrainingData, type_index: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "4"]]:
    """Return the spread of every lesion's texture in HU; of all of them the grain in mm by axis, and its share.

    The texture is what is left of a lesion without the mean of each layer of voxels, from its surface inwards (the
    blur of the edge is painted otherwise), cut off at three standard deviations as the median tells them: bone and
    air at a rim are no texture. White noise under a Gaussian of standard deviation s has the correlation
    exp(-d^2 / 4 s^2) between voxels d apart; with white noise added, a share a of the variance is of that kind, and
    the correlations at one and at two voxels tell both s and a.
    """
    spreads, products, squares = [], np.zeros((3, 2)), np.zeros((3, 2))
    found = [(case, lesion) for case in data.cases for lesion in case.lesions if lesion.type_index == type_index]
    for case, lesion in found[:_MOST_LESIONS]:
        box, mask = cut_instance(case.labels, lesion, data.spec.lesions[type_index].label, margin_voxels=(1, 1, 1))
        texture = _texture(np.asarray(case.image[box], dtype=np.float64), mask, data.spec.spacing_mm)
        spreads.append(float(texture[mask].std()))
        for axis, distance in ((axis, distance) for axis in range(3) for distance in (1, 2)):
            first, second, is_first, is_second = (
                np.moveaxis(array, axis, 0)[part]
                for array in (texture, mask)
                for part in (slice(None, -distance), slice(distance, None))
            )
            is_pair = is_first & is_second
            products[axis, distance - 1] += (first * second)[is_pair].sum()
            squares[axis, distance - 1] += (first**2 + second**2)[is_pair].sum() / 2
    near, far = np.divide(products, squares, out=np.full((3, 2), _LEAST), where=squares > 0).clip(_LEAST, 1).T
    fall = np.log(near / np.minimum(far, near)).clip(_FALL[0], _FALL[1])
    share = (near * np.exp(fall / 3)).mean().clip(0, 1)
    return np.array(spreads), np.array([*(np.array(data.spec.spacing_mm) * np.sqrt(0.75 / fall)), share])


def _texture(
    hu: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"]:
    """Return a lesion's HU less the mean of their layer, without what stands out; 0 outside."""
    layers = np.ceil(ndimage.distance_transform_edt(mask, sampling=spacing_mm) / max(spacing_mm)).astype(int)
    layer_hu = ndimage.median(hu, layers, range(int(layers.max()) + 1))
    texture = np.where(mask, hu - np.asarray(layer_hu)[layers], 0.0)
    limit = _MOST_SIGMAS * _SIGMA_PER_DEVIATION * float(np.median(np.abs(texture[mask])))
    clipped: np.ndarray = texture.clip(-limit, limit)
    return clipped


@dataclass(frozen=True)
class IntensitySynthesizer:
    """Fills masks with a level and a texture."""

    card: SynthesizerCard
    lesions: Mapping[str, Float[np.ndarray, "3 n"]]
    """Mean, contrast and spread in HU of the training lesions, by type name."""
    texture: Mapping[str, Float[np.ndarray, " n"]]
    """Spread of their texture in HU."""
    grain: Mapping[str, Float[np.ndarray, "4"]]
    """Its blur in mm along each axis, and the share of its variance that is blurred; the rest is white."""
    config: IntensityConfig

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[Float32[np.ndarray, "x y z"]]:
        """Return the HU of every lesion's box; see `Synthesizer.paint`."""
        return [
            self._paint(image, lesion, type_index, numpy_generator(seed, INTENSITY))
            for image, lesion, type_index, seed in zip(images, lesions, types, seeds, strict=True)
        ]

    def _paint(
        self, image: Volume, lesion: PlacedLesion, type_index: int, generator: np.random.Generator
    ) -> Float32[np.ndarray, "_ _ _"]:
        """Paint so that the mean inside the mask is the one drawn, edge and all."""
        mask, scan = lesion.mask, image.array[lesion.box].astype(np.float64)
        mean_hu, std_hu, texture_hu, grain = self._draw(type_index, scan[mask], generator)
        softness_mm = self.config.edge_softness_voxels * min(self.card.spec.spacing_mm)
        share = soft_share(mask, softness_mm=softness_mm, spacing_mm=image.spacing_mm, edge_mm=self.card.edge_mm)
        rest = (scan * (1 - share))[mask].mean()
        level = (mean_hu - rest) / share[mask].mean()
        plain = scan + share * (level - scan)
        sigma = [blur_mm / side for blur_mm, side in zip(grain[:3], image.spacing_mm, strict=True)]
        smooth, white = (generator.normal(size=mask.shape) for _ in range(2))
        smooth = ndimage.gaussian_filter(smooth, sigma, mode="reflect")
        texture = (math.sqrt(grain[3]) * smooth / smooth.std() + math.sqrt(1 - grain[3]) * white) * share
        texture -= texture[mask].mean()
        strength = float(texture[mask].std())
        # the soft edge makes a part of a lesion's spread already
        wanted_hu = min(texture_hu, math.sqrt(max(0.0, std_hu**2 - float(plain[mask].var()))))
        painted: np.ndarray = plain + (wanted_hu / strength if strength > 0 else 0.0) * texture
        fine = finer_noise(
            scan.astype(np.float32),
            mask,
            spacing_mm=image.spacing_mm,
            kept_mm=self.card.spec.spacing_mm,
            generator=generator,
        )
        finished: np.ndarray = (painted + share * fine).astype(np.float32)
        return finished

    def _draw(
        self, type_index: int, healthy_hu: Float[np.ndarray, " n"], generator: np.random.Generator
    ) -> tuple[float, float, float, Float[np.ndarray, "4"]]:
        """Draw mean and spread of a training lesion, the mean a little off, a texture's spread, and the type's grain.

        Where the training lesions' contrast to their host varies less than their mean, the contrast is kept and goes
        onto the host at this place. A type without training lesions has any mean of its range and the host's noise.
        """
        lesion_type = self.card.spec.lesions[type_index]
        low, high = lesion_type.hu
        known = self.lesions.get(lesion_type.name)
        if known is None:
            noise_hu = float(healthy_hu.std())
            return float(generator.uniform(low, high)), math.inf, noise_hu, np.array([*self.card.spec.spacing_mm, 0.5])
        means, contrasts, spreads = known
        own = int(generator.integers(len(means)))
        is_by_contrast = contrasts.std() < means.std()
        spread = float((contrasts if is_by_contrast else means).std()) or _SMALL_SHARE * (high - low)
        mean_hu = float(contrasts[own] + healthy_hu.mean() if is_by_contrast else means[own])
        mean_hu += self.config.level_jitter * spread * float(generator.normal())
        texture = self.texture[lesion_type.name]
        texture_hu = float(texture[int(generator.integers(len(texture)))])
        return min(max(mean_hu, low), high), float(spreads[own]), texture_hu, self.grain[lesion_type.name]


def load_intensity(run_folder: Path, *, device: str = "auto") -> IntensitySynthesizer:
    """Read the figures of a finished run.

    Raises:
        CheckpointError: the run is not finished or damaged.
    """
    checkpoint = load_checkpoint(run_folder / "checkpoint", stage=INTENSITY)
    return IntensitySynthesizer(
        card_without_network(checkpoint.card, INTENSITY, device=device, source=run_folder),
        {name: found.numpy() for name, found in checkpoint.part("lesions").items()},
        {name: found.numpy() for name, found in checkpoint.part("texture").items()},
        {name: found.numpy() for name, found in checkpoint.part("grain").items()},
        IntensityConfig.model_validate(checkpoint.card["config"]),
    )
