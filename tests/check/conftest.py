"""A small body that no mirror leaves as it is, cases of it, and a finished check."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from promptlesion.check.facts import CaseFacts, CaseFiles
from promptlesion.data.dataset import image_path, label_path, write_case, write_dataset_json
from promptlesion.data.volume import Volume

if TYPE_CHECKING:
    from promptlesion.autoencoder.config import AutoencoderConfig
    from promptlesion.config import Config
    from promptlesion.diffusion.config import DiffusionConfig

LABELS = {"background": 0, "liver": 1, "spleen": 2, "liver_tumor": 3}
SPACING_MM = (2.0, 2.5, 3.0)
AFFINE = np.diag([*SPACING_MM, 1.0])
SHAPE = (48, 40, 32)


def body(seed: int = 0, *, tumor_radius_mm: float = 9.0) -> tuple[Volume, Volume]:
    """Liver right, spleen left, spine behind, a lung high up on the left, and one tumour in the liver."""
    generator = np.random.default_rng(seed)
    x, y, z = (np.indices(SHAPE)[axis] * SPACING_MM[axis] for axis in range(3))
    shift = generator.uniform(-1.5, 1.5, 3)

    def ball(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        middle = np.array(center) + shift
        squares = [((g - m) / r) ** 2 for g, m, r in zip((x, y, z), middle, radii, strict=True)]
        return np.sum(squares, axis=0) <= 1

    image = np.full(SHAPE, -1000.0)
    image[ball((47, 50, 46), (42, 44, 90))] = 40
    image[ball((47, 16, 46), (8, 8, 90))] = 600
    image[ball((30, 62, 80), (12, 14, 16))] = -850
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for value, hu, center, radii in (
        (1, 110, (64, 55, 45), (20, 24, 26)),
        (2, 150, (22, 36, 40), (10, 10, 14)),
        (3, 60, (66, 58, 42), (tumor_radius_mm,) * 3),
    ):
        mask = ball(center, radii)
        labels[mask], image[mask] = value, hu
    image += generator.normal(0, 15, SHAPE)
    return Volume(image.clip(-1024, 3000).astype(np.int16), AFFINE), Volume(labels, AFFINE)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., CaseFiles]:
    """Write a case, or parts of it, and say where it is."""

    def write(name: str = "case_017", image: Volume | None = None, labels: Volume | None = None) -> CaseFiles:
        right_image, right_labels = body()
        for volume, path in (
            (image or right_image, image_path(tmp_path, name)),
            (labels or right_labels, label_path(tmp_path, name)),
        ):
            from promptlesion.data.volume import write_volume

            write_volume(volume, path)
        return case_files(tmp_path, name)

    return write


def case_files(root: Path, name: str) -> CaseFiles:
    return CaseFiles(
        name=name,
        image_path=image_path(root, name),
        label_path=label_path(root, name),
        labels=LABELS,
        lesion_labels=(3,),
        colors={1: (0.5, 0.5, 0.5), 2: (0.4, 0.4, 0.4), 3: (1.0, 0.5, 0.0)},
        window_hu=(-160.0, 240.0),
    )


def write_bodies(root: Path, number: int) -> Path:
    """Write a dataset folder of some cases without a lesions.toml."""
    for index in range(number):
        write_case(root, f"case_{index:03d}", *body(index))
    write_dataset_json(root, labels=LABELS, num_training=number, extra={})
    return root


@pytest.fixture(scope="session")
def examined(tmp_path_factory: pytest.TempPathFactory) -> list[CaseFacts]:
    """Six cases with nothing wrong."""
    from promptlesion.check.case import examine_case

    root = write_bodies(tmp_path_factory.mktemp("bodies"), 6)
    return [examine_case(case_files(root, f"case_{index:03d}")) for index in range(6)]


@pytest.fixture(scope="session")
def tiny_config(tiny_autoencoder_config: "AutoencoderConfig", tiny_diffusion_config: "DiffusionConfig") -> "Config":
    """Networks of a few thousand parameters."""
    from promptlesion.config import Config
    from promptlesion.segmentation.config import SegmentationConfig

    segmentation = SegmentationConfig(
        patch_voxels=16, channels=(4, 8), residual_units=1, batch_size=2, num_epochs=2, steps_per_epoch=3
    )
    return Config(autoencoder=tiny_autoencoder_config, diffusion=tiny_diffusion_config, segmentation=segmentation)
