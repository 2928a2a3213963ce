"""Scans of every orientation to paint into, a tiny trained model, and a cohort made with it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from promptlesion.data.dataset import (
    Dataset,
    DatasetSpec,
    image_path,
    label_path,
    open_dataset,
    write_dataset_json,
    write_spec,
)
from promptlesion.data.lesion_statistics import LesionStatistics, TypeStatistics
from promptlesion.data.volume import Volume
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.schedule import build_schedule
from promptlesion.masks.placement import PlacedLesion
from promptlesion.masks.sizes_and_shapes import LesionDrawing
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, Synthesizer, SynthesizerCard, load_synthesizer

LABELS = {"background": 0, "organ": 1, "bright": 2, "dark": 3, "lumen": 4}
TILT = Rotation.from_euler("xyz", [11, -6, 4], degrees=True).as_matrix()
PERMUTED = np.array([[0.0, 0, -1], [1, 0, 0], [0, 1, 0]])
SCANS = {
    "ras": (np.eye(3), (1.0, 1.0, 1.5), np.int16),
    "lps": (np.diag([-1.0, -1, 1]), (0.9, 1.1, 1.3), np.int16),
    "permuted": (PERMUTED, (1.2, 1.0, 1.0), np.int16),
    "oblique": (TILT @ np.diag([1.0, -1, 1]), (1.1, 0.9, 1.5), np.int32),
    "oblique_permuted": (TILT @ PERMUTED, (1.4, 1.0, 1.1), np.float32),
}
"""Directions of the file's axes in the world, spacing in millimetres, and type of the voxels."""


def tube(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """An organ around a lumen along the last axis, with a lesion already in it."""
    offsets = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*offsets, indexing="ij")
    radius = np.hypot(x, y)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[(radius < 17) & (abs(z) < 22)] = 1
    labels[radius < 4] = 4
    labels[(x - 9) ** 2 + y**2 + (z + 14) ** 2 < 3.0**2] = 3
    return labels


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory, tiny_spec: DatasetSpec) -> Dataset:
    """One scan of every orientation; lesions of any brightness are plausible, as the model is hardly trained."""
    root = tmp_path_factory.mktemp("scans")
    for index, (name, (directions, spacing_mm, dtype)) in enumerate(SCANS.items()):
        shape = tuple(round(length / s) for length, s in zip((46, 49, 54), spacing_mm, strict=True))
        labels = tube(shape, spacing_mm)
        noise = np.random.default_rng(index).normal(0, 20, shape)
        hu = np.array([-900, 120, 550, 0, 330])[labels] + noise
        affine = np.eye(4)
        affine[:3, :3] = directions * spacing_mm
        affine[:3, 3] = (-123.4, 56.7, 10.1 * index)
        for path, array in ((image_path(root, name), hu.astype(dtype)), (label_path(root, name), labels)):
            path.parent.mkdir(exist_ok=True)
            nib.Nifti1Image(array, affine).to_filename(path)
    write_dataset_json(root, labels=LABELS, num_training=len(SCANS), extra={})
    lesions = tuple(
        lesion.model_copy(update={"hu": (-1000.0, 3000.0), "diameter_mm": (4.0, 8.0)}) for lesion in tiny_spec.lesions
    )
    write_spec(tiny_spec.model_copy(update={"lesions": lesions}), root / "lesions.toml")
    return open_dataset(root)


@pytest.fixture(scope="session")
def config() -> SynthesisConfig:
    return SynthesisConfig(sampler="ddim", num_steps=3, lesions_per_case=2, max_attempts=2, accept_all=True)


@pytest.fixture(scope="session")
def drawing() -> LesionDrawing:
    """Ellipsoids of any size in their type's range."""
    return LesionDrawing(LesionStatistics(types={}), deformation=0.2, edge_mm=3.0, max_extent_mm=30.0)


@pytest.fixture(scope="session")
def synthesizer(
    tiny_diffusion_run: Path, config: SynthesisConfig, tiny_diffusion_config: DiffusionConfig
) -> PromptLesionSynthesizer:
    """The tiny model shaken up, so that its output varies as a trained one's would.

    After forty steps the prompt hardly matters and all latents have one code. The schedule leaves a trace of the
    healthy latent at its last level.
    """
    synthesizer = load_synthesizer(tiny_diffusion_run, config, device="cpu")
    denoiser, network = synthesizer.model.denoiser, synthesizer.model.autoencoder.network
    denoiser.schedule = build_schedule(tiny_diffusion_config.model_copy(update={"rescale_betas": False}))
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    spread = torch.randn(network.quantizer.codebook.shape, generator=generator)
    network.latent_std /= network.latent_std.mean()
    network.quantizer.codebook.copy_(network.latent_mean + network.latent_std * spread)
    return synthesizer


def numbers_alone(**counts_per_case: tuple[int, ...]) -> LesionStatistics:
    """Statistics that tell how many lesions of each type the training cases have, and nothing of the lesions."""
    nothing = {"diameters_mm": (), "mean_hu": (), "std_hu": (), "contrast_hu": ()}
    types = {name: TypeStatistics(**nothing, counts_per_case=counts) for name, counts in counts_per_case.items()}
    return LesionStatistics(types=types)


class NoisePainter:
    """Another method behind the same interface: noise around a mean, its own for every seed; the rest as it was."""

    def __init__(
        self,
        spec: DatasetSpec,
        *,
        mean_hu: tuple[float, ...] = (500.0, 20.0),
        stop_after: int = 10**9,
        is_batch_seen: bool = False,
        **facts: Any,
    ) -> None:
        """With `is_batch_seen` a lesion's last bits depend on those it is painted with, as a network's do."""
        self.mean_hu, self.stop_after, self.is_batch_seen = mean_hu, stop_after, is_batch_seen
        self.calls: list[tuple[int, ...]] = []
        usual = {
            "method": "noise",
            "model_hash": "0" * 64,
            "statistics": numbers_alone(bright=(2, 1, 1), dark=(1, 1, 0)),
            "device": torch.device("cpu"),
            "edge_mm": 3.0,
            "max_extent_mm": 30.0,
            "finest_mm": 1.0,
        }
        self.card = SynthesizerCard(spec=spec, **usual | facts)

    def paint(
        self, images: Sequence[Volume], lesions: Sequence[PlacedLesion], *, types: Sequence[int], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        if len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(tuple(seeds))
        painted = []
        for image, lesion, kind, seed in zip(images, lesions, types, seeds, strict=True):
            others = len(lesions) + sum(seeds) % 7 if self.is_batch_seen else 0
            noise = np.random.default_rng(seed).normal(self.mean_hu[kind] + others, 30, lesion.mask.shape)
            painted.append(np.where(lesion.mask, noise, image.array[lesion.box]).astype(np.float32))
        return painted


@pytest.fixture(scope="session")
def noise_painter() -> Callable[..., Synthesizer]:
    return NoisePainter
