"""Real and synthetic patches in a stated proportion, and never one of a validation or test subject."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from promptlesion.data.cache import CachedCase, data_fingerprint
from promptlesion.data.patch_batches import PatchBatches
from promptlesion.data.prepared import PreparedDataset
from promptlesion.data.spec import DatasetSpec
from promptlesion.segmentation.augmentation import build_augmentation
from promptlesion.segmentation.config import SegmentationConfig
from promptlesion.training.run import Run, RunOptions
from promptlesion.training.seeding import derive_seed

_MOST_PATCHES = 1000
"""A ratio is taken as that of two whole numbers up to it."""


def synthetic_share(synthetic_ratio: float) -> Fraction:
    """Turn synthetic patches per real patch into the synthetic share of all patches: 1 (1 : 1) -> 1/2."""
    ratio = Fraction(synthetic_ratio).limit_denominator(_MOST_PATCHES)
    return ratio / (1 + ratio)


@dataclass(frozen=True)
class SegmentationData:
    """What a network learns from, and by what it is selected."""

    real: Sequence[CachedCase]
    synthetic: Sequence[CachedCase]
    """Mixed in as `synthetic_ratio` asks; may be empty."""
    validation: Sequence[CachedCase]
    """Whole scans by whose lesion Dice the best weights are selected."""
    test: Sequence[CachedCase]
    """Held out; never read, but a training case of one of their subjects is noticed."""
    spec: DatasetSpec
    labels: dict[str, int]
    """Every label of the dataset by name, background included."""

    @classmethod
    def of(cls, prepared: PreparedDataset, synthetic: Sequence[CachedCase]) -> "SegmentationData":
        """Return the parts of a dataset, with synthetic cases for training."""
        dataset = prepared.dataset
        return cls(prepared.train, synthetic, prepared.validation, prepared.test, dataset.spec, dataset.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what the network sees, in training and validation."""
        return data_fingerprint([*self.real, *self.synthetic, *self.validation])

    def open_run(self, options: RunOptions, config: Mapping[str, object]) -> Run:
        """Check the cases, and open the run of a training on them, or take it up.

        Raises:
            ValueError: a training case of a validation or test subject, or no lesion in any validation case.
        """
        check_subjects_apart(self)
        check_validation_lesions(self.validation, self.spec)
        kinds = {"training": self.real, "synthetic": self.synthetic, "validation": self.validation}
        inputs = {
            **{f"{kind} cases": ", ".join(case.name for case in cases) for kind, cases in kinds.items()},
            "data": self.fingerprint,
            "labels": json.dumps(self.labels),
            "dataset": self.spec.model_dump_json(),
        }
        return Run(options, stage="segmentation", config=config, inputs=inputs)

    def facts(self) -> dict[str, object]:
        """Return what the card of a network says of its data."""
        return {
            **self.spec.facts(),
            "data_fingerprint": self.fingerprint,
            "dataset": self.spec.model_dump(mode="json"),
            "labels": self.labels,
            "training_cases": [case.name for case in self.real],
            "synthetic_cases": [case.name for case in self.synthetic],
            "training_subjects": sorted({case.subject for case in (*self.real, *self.synthetic)}),
            "validation_cases": [case.name for case in self.validation],
        }


def check_subjects_apart(data: SegmentationData) -> None:
    """Refuse to train on a scan, real or synthetic, of a subject that validates or tests.

    A validation scan of a test subject is refused too: it would select the weights by what they are judged on.

    Raises:
        ValueError: names the first such case and its subject.
    """
    validating, testing = ({case.subject for case in cases} for cases in (data.validation, data.test))
    for kind, cases, others in (
        ("real training", data.real, {"validation": validating, "test": testing}),
        ("synthetic training", data.synthetic, {"validation": validating, "test": testing}),
        ("validation", data.validation, {"test": testing}),
    ):
        for case in cases:
            for part, subjects in others.items():
                if case.subject in subjects:
                    raise ValueError(
                        f"{case.name}: expected {kind} cases of other subjects than the {part} cases'; "
                        f"found subject {case.subject!r}, who is in the {part} part"
                    )


def check_validation_lesions(cases: Sequence[CachedCase], spec: DatasetSpec) -> None:
    """Refuse validation cases without a single lesion, which could not tell good weights from bad ones.

    Raises:
        ValueError: names the cases and the lesion types.
    """
    if not cases:
        raise ValueError(
            "validation cases: expected some, to select the weights by; found none. data.validation_fraction, or the "
            "dataset's splits_final.json, leaves them out"
        )
    if not any(lesion.label in case.num_label_voxels for case in cases for lesion in spec.lesions):
        raise ValueError(
            f"validation cases: expected a lesion of {', '.join(lesion.name for lesion in spec.lesions)} in "
            f"one of them, to select the weights by; found none in {[case.name for case in cases]}"
        )


def mixed_batches(data: SegmentationData, config: SegmentationConfig, *, seed: int) -> PatchBatches:
    """Prepare batches whose patches are synthetic in the share that `synthetic_ratio` asks for, exactly.

    Of 12 patches at 1 : 1 six are, of 3 one and two by turns. Without synthetic cases, every patch is real.
    """
    return PatchBatches(
        data.real,
        spec=data.spec,
        patch_voxels=config.patch_voxels,
        batch_size=config.batch_size,
        seed=derive_seed(seed, "segmentation"),
        extra_cases=data.synthetic,
        extra_share=synthetic_share(config.synthetic_ratio),
        augmentation=build_augmentation(config),
    )
