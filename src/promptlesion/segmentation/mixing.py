"""Real and synthetic patches in a stated proportion, and never a synthetic one of a validation subject."""

from collections.abc import Sequence

from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.seeding import derive_seed


def synthetic_share(synthetic_ratio: float) -> float:
    """Turn synthetic patches per real patch into the synthetic share of all patches: 1 (1 : 1) -> 1/2."""
    return synthetic_ratio / (1.0 + synthetic_ratio)


def check_subjects_apart(
    *,
    real_cases: Sequence[CachedCase],
    synthetic_cases: Sequence[CachedCase],
    validation_cases: Sequence[CachedCase],
) -> None:
    """Refuse to train on any patch, real or synthetic, that comes from a validation subject.

    Raises:
        ValueError: names the first such case and its subject.
    """
    held_out = {case.subject for case in validation_cases}
    for kind, cases in (("real", real_cases), ("synthetic", synthetic_cases)):
        for case in cases:
            if case.subject in held_out:
                raise ValueError(
                    f"{case.name}: expected {kind} training cases of other subjects than the validation "
                    f"cases'; found subject {case.subject!r}, which validates"
                )


def mixed_batches(
    *,
    real_cases: Sequence[CachedCase],
    synthetic_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    config: SegmentationConfig,
    seed: int,
) -> PatchBatches:
    """Prepare batches in which each patch is synthetic with the share that `synthetic_ratio` asks for.

    Without synthetic cases, every patch is real.
    """
    return PatchBatches(
        real_cases,
        spec=spec,
        patch_voxels=config.patch_voxels,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "segmentation"),
        extra_cases=synthetic_cases,
        extra_share=synthetic_share(config.synthetic_ratio),
    )
