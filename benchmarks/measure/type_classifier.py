"""Tells a lesion's type from how it looks: linear discriminant analysis, learned on real lesions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from promptlesion.data.intensity import HUWindow
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.results import Estimate

_PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, eq=False)
class TypeClassifier:
    """The type with the greatest discriminant; all types are held to be equally frequent."""

    mean: Float64[np.ndarray, " feature"]
    scale: Float64[np.ndarray, " feature"]
    weights: Float64[np.ndarray, "feature type"]
    offsets: Float64[np.ndarray, " type"]

    def __call__(self, features: Float64[np.ndarray, "lesion feature"]) -> Int[np.ndarray, " lesion"]:
        """Return each lesion's type, in the order of the fit."""
        scores = (features - self.mean) / self.scale @ self.weights + self.offsets
        return np.asarray(scores.argmax(axis=1))


def fit_type_classifier(
    features: Float64[np.ndarray, "lesion feature"],
    types: Sequence[int] | Int[np.ndarray, " lesion"],
    *,
    num_types: int,
    shrinkage: float = 0.1,
) -> TypeClassifier:
    """Fit Gaussians of a shared covariance (Fisher 1936), shrunk towards that of uncorrelated features.

    Args:
        features: of each lesion.
        types: of each lesion, from 0.
        num_types: types to tell apart.
        shrinkage: share of the identity in the covariance of the standardised features.

    Raises:
        ValueError: a type has fewer than two lesions.
    """
    known = np.asarray(types)
    counts = np.bincount(known, minlength=num_types)
    if len(counts) > num_types or (counts < 2).any():
        raise ValueError(f"types: expected at least two lesions of each of {num_types} types, found {counts.tolist()}")
    centers = np.stack([features[known == index].mean(axis=0) for index in range(num_types)])
    mean, scale = features.mean(axis=0), np.sqrt(((features - centers[known]) ** 2).mean(axis=0))
    scale[scale == 0] = 1.0
    deviations = (features - centers[known]) / scale
    covariance = deviations.T @ deviations / (len(features) - num_types)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.eye(len(mean))
    standardised = (centers - mean) / scale
    weights = np.linalg.solve(covariance, standardised.T)
    return TypeClassifier(mean, scale, weights, -0.5 * np.einsum("tf,ft->t", standardised, weights))


def intensity_features(lesions: Sequence[LesionCrop], window: HUWindow) -> Float64[np.ndarray, "lesion feature"]:
    """Return mean, standard deviation and percentiles of the normalised voxels inside each lesion."""
    voxels = [window.normalize(lesion.voxels_hu).astype(np.float64) for lesion in lesions]
    rows = [[values.mean(), values.std(), *np.percentile(values, _PERCENTILES)] for values in voxels]
    return np.array(rows, dtype=np.float64).reshape(len(lesions), 2 + len(_PERCENTILES))


def balanced_accuracy(
    truth: Int[np.ndarray, " lesion"],
    told: Int[np.ndarray, " lesion"],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Share of right answers, the mean over the types that occur; the interval from resampling within each type.

    Resampled answers, right or wrong, are binomial.
    """
    generator = np.random.default_rng(seed)
    kinds, counts = np.unique(truth, return_counts=True)
    shares = [float((told[truth == kind] == kind).mean()) for kind in kinds]
    resampled = [
        generator.binomial(count, share, num_resamples) / count for count, share in zip(counts, shares, strict=True)
    ]
    low, high = np.quantile(np.mean(resampled, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value=float(np.mean(shares)), low=float(low), high=float(high))


def confusion(
    asked: Int[np.ndarray, " lesion"], told: Int[np.ndarray, " lesion"], *, num_types: int
) -> Int[np.ndarray, "asked told"]:
    """Count the lesions of each asked-for type (rows) by the type they were told to be (columns)."""
    counts = np.zeros((num_types, num_types), dtype=np.int64)
    np.add.at(counts, (asked, told), 1)
    return counts
