"""Scans of every orientation to paint into, a tiny trained model, and a cohort made with it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
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
from promptlesion.synthesis.config import SynthesisConfig
from promptlesion.synthesis.synthesizer import PromptLesionSynthesizer, load_synthesizer

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
    return SynthesisConfig(sampler="ddim", num_steps=3, lesions_per_case=2, max_attempts=2)


@pytest.fixture(scope="session")
def synthesizer(tiny_diffusion_run: Path, config: SynthesisConfig) -> PromptLesionSynthesizer:
    return load_synthesizer(tiny_diffusion_run, config, device="cpu")
