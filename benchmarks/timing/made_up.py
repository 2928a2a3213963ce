"""Made-up scans with balls for lesions, and finished runs of networks that were never trained: they take as long."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from promptlesion.autoencoder.autoencoder import build_autoencoder
from promptlesion.baselines.med_ddpm import MED_DDPM
from promptlesion.baselines.voxel_denoiser import build_voxel_denoiser
from promptlesion.config import Config
from promptlesion.data.cache import CachedCase
from promptlesion.data.dataset import Dataset, open_dataset, write_case, write_dataset_json, write_spec
from promptlesion.data.spec import DatasetSpec, LesionType
from promptlesion.data.training_data import TrainingData
from promptlesion.data.volume import Volume
from promptlesion.diffusion.config import DiffusionConfig
from promptlesion.diffusion.denoiser import build_denoiser
from promptlesion.diffusion.schedule import build_schedule
from promptlesion.training.atomic import read_json
from promptlesion.training.checkpoint import save_checkpoint

LABELS = {"background": 0, "organ": 1, "bright": 2, "dark": 3}
_HU = np.array([-100, 100, 400, 0])
_NOISE_HU = 20


def spec_of(voxel_mm: float = 1.0) -> DatasetSpec:
    """Return a bright and a dark lesion type in one organ; of any brightness, as nothing is trained."""
    lesions = tuple(
        LesionType(name=name, label=LABELS[name], host=("organ",), diameter_mm=(6.0, 12.0), hu=(-1000.0, 3000.0))
        for name in ("bright", "dark")
    )
    return DatasetSpec(window_hu=(-200.0, 800.0), spacing_mm=(voxel_mm,) * 3, lesions=lesions)


def write_dataset(root: Path, *, num_cases: int, shape: tuple[int, int, int]) -> Dataset:
    """Write noisy boxes of an organ with a lesion of either type in each, a subject a case; what is there is kept."""
    if not (root / "dataset.json").is_file():
        for index in range(num_cases):
            image, labels = _draw(index, shape)
            write_case(root, f"case_{index:04d}", Volume(image, np.eye(4)), Volume(labels, np.eye(4)))
        write_spec(spec_of(), root / "lesions.toml")
        write_dataset_json(root, labels=LABELS, num_training=num_cases, extra={})
    return open_dataset(root)


def _draw(index: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(index)
    labels = np.zeros(shape, dtype=np.uint8)
    margin = tuple(max(1, length // 10) for length in shape)
    labels[tuple(slice(m, length - m) for m, length in zip(margin, shape, strict=True))] = 1
    for value, third in ((2, 1), (3, 2)):
        radius = generator.uniform(0.6, 1.0) * min(6, min(shape) / 6)
        center = [third * shape[0] // 3, *(length // 3 + int(generator.integers(-2, 3)) for length in shape[1:])]
        squares = sum((axis - c) ** 2 for axis, c in zip(np.ogrid[tuple(map(slice, shape))], center, strict=True))
        labels[squares <= radius**2] = value
    noise = generator.standard_normal(shape, dtype=np.float32) * _NOISE_HU
    return (_HU[labels] + noise).astype(np.int16), labels


def write_autoencoder(run: Path, config: Config, cases: Sequence[CachedCase], spec: DatasetSpec) -> Path:
    """Write a run of stage 1 that was never trained, its codebook filled."""
    if not (run / "checkpoint" / "card.json").is_file():
        torch.manual_seed(0)
        network = build_autoencoder(config.autoencoder)
        network.quantizer.codebook.normal_()
        network.quantizer.is_initialized.fill_(value=True)
        card = {
            "stage": "autoencoder",
            "config": config.autoencoder.model_dump(mode="json"),
            "lesion_bias": [],
            **_facts(cases, spec),
        }
        save_checkpoint(run / "checkpoint", card=card, parts={"autoencoder": network.state_dict()})
    return run


def write_diffusion(
    run: Path,
    autoencoder: Path,
    config: Config,
    settings: DiffusionConfig,
    cases: Sequence[CachedCase],
    spec: DatasetSpec,
) -> Path:
    """Write a run of stage 2 that was never trained, beside its autoencoder."""
    if not (run / "checkpoint" / "card.json").is_file():
        torch.manual_seed(0)
        network = build_denoiser(
            settings,
            latent_channels=config.autoencoder.latent_channels,
            latent_voxels=settings.patch_voxels // config.autoencoder.downsampling,
            num_types=len(spec.lesions),
        )
        card = {
            "stage": "diffusion",
            "method": "promptlesion",
            **build_schedule(settings).facts(),
            "config": settings.model_dump(mode="json"),
            "autoencoder": str(autoencoder.resolve()),
            "autoencoder_sha256": read_json(autoencoder / "checkpoint" / "card.json")["weights_sha256"],
            **_facts(cases, spec),
        }
        save_checkpoint(run / "checkpoint", card=card, parts={"denoiser": network.state_dict()})
    return run


def write_med_ddpm(run: Path, config: Config, cases: Sequence[CachedCase], spec: DatasetSpec) -> Path:
    """Write a run of Med-DDPM that was never trained."""
    if not (run / "checkpoint" / "card.json").is_file():
        torch.manual_seed(0)
        network = build_voxel_denoiser(config.med_ddpm, num_types=len(spec.lesions))
        card = {
            "stage": MED_DDPM,
            "method": MED_DDPM,
            "config": config.med_ddpm.model_dump(mode="json"),
            **_facts(cases, spec),
        }
        save_checkpoint(run / "checkpoint", card=card, parts={"denoiser": network.state_dict()})
    return run


def _facts(cases: Sequence[CachedCase], spec: DatasetSpec) -> dict[str, object]:
    data = TrainingData(cases, spec, LABELS)
    return data.facts(data.statistics)
