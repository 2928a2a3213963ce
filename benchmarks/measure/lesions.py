"""Real and painted lesions as features, and the KID between them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from measure.bench import Bench, say
from measure.painted_crop import painted_crop
from measure.type_classifier import intensity_features
from promptlesion.evaluation.distances import distance_interval, kernel_distance
from promptlesion.evaluation.features import ImageNetSliceFeatures
from promptlesion.evaluation.lesions import LesionCrop, collect_lesions
from promptlesion.evaluation.results import Estimate
from promptlesion.synthesis.trial_painting import MaskedScan, blend_masks
from promptlesion.training.atomic import written_whole
from promptlesion.training.seeding import numpy_generator


@dataclass(frozen=True, eq=False)
class DescribedLesions:
    """Features, mean HU and types of lesions, real or painted."""

    features: np.ndarray
    intensity: np.ndarray
    mean_hu: np.ndarray
    types: np.ndarray
    is_training: np.ndarray

    def std_hu(self, bench: Bench) -> np.ndarray:
        """Standard deviation of the voxels inside each lesion, clipped to the window."""
        low, high = bench.prepared.dataset.spec.window_hu
        return np.asarray(self.intensity[:, 1] * (high - low) / 2)

    def mean_by_type(self, values: np.ndarray, types: Sequence[str]) -> dict[str, float]:
        """Return the mean of one figure a lesion over each type that occurs."""
        present = set(self.types.tolist())
        return {
            name: round(float(values[self.types == index].mean()), 2)
            for index, name in enumerate(types)
            if index in present
        }


def real_lesions(bench: Bench, extractor: ImageNetSliceFeatures) -> DescribedLesions:
    """Describe the real lesions of training and held-out subjects, or read their description."""
    asked = f"{extractor.name} {extractor.layer} {bench.config.evaluation.feature_margin_voxels} {bench.scope()}"
    path = bench.out / "parts" / f"real-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.npz"
    if not path.is_file():
        crops = {
            part: collect_lesions(
                bench.prepared.part(part), margin_voxels=bench.config.evaluation.feature_margin_voxels
            )
            for part in ("train", "test")
        }
        say("features of the real lesions")
        everything = [*crops["train"], *crops["test"]]
        types = np.array([bench.types.index(crop.lesion_type) for crop in everything])
        found = described(bench, everything, extractor, types)
        found.is_training[: len(crops["train"])] = True
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **vars(found))
    with np.load(path) as stored:
        return DescribedLesions(**{name: stored[name] for name in stored.files})


def described(
    bench: Bench, crops: Sequence[LesionCrop], extractor: ImageNetSliceFeatures, types: np.ndarray
) -> DescribedLesions:
    """Compute the features of lesions."""
    return DescribedLesions(
        features=extractor(crops),
        intensity=intensity_features(crops, bench.prepared.dataset.window),
        mean_hu=np.array([crop.mean_hu for crop in crops]),
        types=types,
        is_training=np.zeros(len(crops), dtype=bool),
    )


def joined(parts: Sequence[DescribedLesions]) -> DescribedLesions:
    """Put lesions described scan by scan together."""
    return DescribedLesions(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def painted_crops(
    bench: Bench, scan: MaskedScan, painted: Sequence[np.ndarray], types: Sequence[int], edge_mm: float
) -> list[LesionCrop]:
    """Blend the painted lesions and cut them out as the real ones are cut."""
    return [
        painted_crop(
            scan.image,
            hu,
            lesion.mask,
            lesion.box,
            case=scan.case,
            subject=scan.subject,
            lesion_type=bench.types[type_index],
            margin_voxels=bench.config.evaluation.feature_margin_voxels,
        )
        for lesion, hu, type_index in zip(scan.lesions, blend_masks(scan, painted, edge_mm=edge_mm), types, strict=True)
    ]


def lesion_kids(
    bench: Bench, real: DescribedLesions, features: np.ndarray, types: Sequence[int] | np.ndarray
) -> dict[str, Any]:
    """Lesion-KID against all real lesions, pooled over types and type by type."""

    def kid(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
        if min(len(first), len(second)) < 2:
            return Estimate(value=None).model_dump()
        return distance_interval(kernel_distance, first, second, seed=bench.seed).model_dump()

    known = np.asarray(types)
    return {
        "kid": kid(real.features[_balanced(real, bench.seed)], features),
        "kid_by_type": {
            name: {
                "num_real": int((real.types == index).sum()),
                "num_painted": int((known == index).sum()),
                "kid": kid(real.features[real.types == index], features[known == index]),
            }
            for index, name in enumerate(bench.types)
        },
    }


def _balanced(real: DescribedLesions, seed: int) -> np.ndarray:
    """Choose equally many real lesions of each type, since equally many are painted."""
    generator = numpy_generator(seed, "balanced")
    kinds, counts = np.unique(real.types, return_counts=True)
    chosen = [generator.choice(np.flatnonzero(real.types == kind), counts.min(), replace=False) for kind in kinds]
    return np.sort(np.concatenate(chosen))


def kid_words(real: DescribedLesions, seed: int) -> str:
    """Return what the KID was computed on, for a table's footer."""
    chosen = _balanced(real, seed)
    held_out = int((~real.is_training[chosen]).sum())
    return (
        f"Lesion-KID: pooled over types, against {len(chosen)} real lesions, equally many of each type, {held_out} of "
        "them of held-out, the others of training subjects; 95 %, 200 bootstrap resamples of lesions."
    )
