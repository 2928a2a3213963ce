"""Real and synthetic patches in a stated proportion, and never one of a validation or test subject."""

from collections.abc import Sequence
from fractions import Fraction

from promptlesion.data.cache import CachedCase
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.augmentation import build_augmentation
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.seeding import derive_seed

_MOST_PATCHES = 1000
"""A ratio is taken as that of two whole numbers up to it."""


def synthetic_share(synthetic_ratio: float) -> Fraction:
    """Turn synthetic patches per real patch into the synthetic share of all patches: 1 (1 : 1) -> 1/2."""
    ratio = Fraction(synthetic_ratio).limit_denominator(_MOST_PATCHES)
    return ratio / (1 + ratio)


def check_subjects_apart(
    *,
    real_cases: Sequence[CachedCase],
    synthetic_cases: Sequence[CachedCase],
    validation_cases: Sequence[CachedCase],
    test_cases: Sequence[CachedCase],
) -> None:
    """Refuse to train on a scan, real or synthetic, of a subject that validates or tests.

    A validation scan of a test subject is refused too: it would select the weights by what they are judged on.

    Raises:
        ValueError: names the first such case and its subject.
    """
    validating, testing = ({case.subject for case in cases} for cases in (validation_cases, test_cases))
    for kind, cases, others in (
        ("real training", real_cases, {"validation": validating, "test": testing}),
        ("synthetic training", synthetic_cases, {"validation": validating, "test": testing}),
        ("validation", validation_cases, {"test": testing}),
    ):
        for case in cases:
            for part, subjects in others.items():
                if case.subject in subjects:
                    raise ValueError(
                        f"{case.name}: expected {kind} cases of other subjects than the {part} cases'; "
                        f"found subject {case.subject!r}, who is in the {part} part"
                    )


def mixed_batches(
    *,
    real_cases: Sequence[CachedCase],
    synthetic_cases: Sequence[CachedCase],
    spec: DatasetSpec,
    config: SegmentationConfig,
    seed: int,
) -> PatchBatches:
    """Prepare batches whose patches are synthetic in the share that `synthetic_ratio` asks for, exactly.

    Of 12 patches at 1 : 1 six are, of 3 one and two by turns. Without synthetic cases, every patch is real.
    """
    return PatchBatches(
        real_cases,
        spec=spec,
        patch_voxels=config.patch_voxels,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "segmentation"),
        extra_cases=synthetic_cases,
        extra_share=synthetic_share(config.synthetic_ratio),
        augmentation=build_augmentation(config),
    )
