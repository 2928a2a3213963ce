"""Fréchet distance (FID) and unbiased kernel distance (KID) between two sets of feature vectors, in float64.

With fewer samples than dimensions the covariances are singular, and the FID grows as N falls: compare only
figures of the same N, and read the KID, which has no such bias, beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from promptlesion.evaluation.features import FeatureExtractor
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.results import Estimate, FidelityRow

_LEVEL = 0.95
"""Of intervals."""
Features = Float[np.ndarray, "_ _"]


def frechet_distance(real: Features, synthetic: Features) -> float:
    """Fréchet distance of the Gaussians fitted to two samples (Heusel et al. 2017, eq. 6).

    |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½. With Σ₁ = AᵀA and Σ₂ = BᵀB the last trace is the sum of the
    singular values of ABᵀ, so no matrix of dimension × dimension is rooted, and N may be small.
    """
    _check(real, synthetic)
    first, second = _scaled_deviations(real), _scaled_deviations(synthetic)
    mean_term = float(((real.mean(axis=0, dtype=np.float64) - synthetic.mean(axis=0, dtype=np.float64)) ** 2).sum())
    variance_term = float((first**2).sum() + (second**2).sum())
    cross_term = float(np.linalg.svd(_shortened(first) @ _shortened(second).T, compute_uv=False).sum())
    return max(mean_term + variance_term - 2 * cross_term, 0.0)


def kernel_distance(real: Features, synthetic: Features) -> float:
    """Unbiased squared MMD with the kernel (x·y / d + 1)³ (Bińkowski et al. 2018, KID); may be below zero."""
    _check(real, synthetic)
    within_real, within_synthetic = _kernel(real, real), _kernel(synthetic, synthetic)
    num_real, num_synthetic = len(real), len(synthetic)
    real_term = (within_real.sum() - np.trace(within_real)) / (num_real * (num_real - 1))
    synthetic_term = (within_synthetic.sum() - np.trace(within_synthetic)) / (num_synthetic * (num_synthetic - 1))
    return float(real_term + synthetic_term - 2 * _kernel(real, synthetic).mean())


def distance_interval(
    distance: Callable[[Features, Features], float],
    real: Features,
    synthetic: Features,
    *,
    seed: int,
    num_resamples: int = 200,
    lowest: float | None = None,
) -> Estimate:
    """Estimate a distance with the interval estimate ± z · bootstrap standard error, cut off at `lowest`.

    Resampling with replacement repeats samples and so shifts both distances upwards; a percentile interval
    would miss the estimate itself, hence the standard error.
    """
    generator = np.random.default_rng(seed)
    resampled = [
        distance(
            real[generator.integers(0, len(real), len(real))],
            synthetic[generator.integers(0, len(synthetic), len(synthetic))],
        )
        for _ in range(num_resamples)
    ]
    estimate = distance(real, synthetic)
    reach = NormalDist().inv_cdf((1 + _LEVEL) / 2) * float(np.std(resampled, ddof=1))
    low = estimate - reach if lowest is None else max(estimate - reach, lowest)
    return Estimate(value=estimate, low=low, high=estimate + reach)


def fidelity_rows(
    extractor: FeatureExtractor,
    real: Mapping[str, Sequence[LesionCrop]],
    synthetic: Mapping[str, Sequence[LesionCrop]],
    *,
    compared: str = "real against synthetic",
    seed: int,
    num_resamples: int = 200,
) -> tuple[FidelityRow, ...]:
    """Compare lesions type by type; a type missing on a side has no row, a single lesion gives no figure."""
    rows = []
    for lesion_type, real_lesions in real.items():
        synthetic_lesions = synthetic.get(lesion_type, ())
        if real_lesions and synthetic_lesions:
            first, second = extractor(real_lesions), extractor(synthetic_lesions)
            fid = kid = Estimate(value=None)
            if min(len(real_lesions), len(synthetic_lesions)) >= 2:
                fid, kid = (
                    distance_interval(distance, first, second, seed=seed, num_resamples=num_resamples, lowest=lowest)
                    for distance, lowest in ((frechet_distance, 0.0), (kernel_distance, None))
                )
            rows.append(
                FidelityRow(
                    lesion_type=lesion_type,
                    compared=compared,
                    network=extractor.name,
                    layer=extractor.layer,
                    dimension=extractor.dimension,
                    num_real=len(real_lesions),
                    num_synthetic=len(synthetic_lesions),
                    fid=fid,
                    kid=kid,
                )
            )
    return tuple(rows)


def _scaled_deviations(features: Features) -> Features:
    wide = features.astype(np.float64)
    return np.asarray((wide - wide.mean(axis=0)) / np.sqrt(len(wide) - 1))


def _shortened(deviations: Features) -> Features:
    """Keep AᵀA with at most as many rows as dimensions; the singular values of ABᵀ stay the same."""
    is_tall = len(deviations) > deviations.shape[1]
    return np.asarray(np.linalg.qr(deviations, mode="r")) if is_tall else deviations


def _kernel(first: Features, second: Features) -> Float[np.ndarray, "first second"]:
    products = first.astype(np.float64) @ second.astype(np.float64).T
    return np.asarray((products / first.shape[1] + 1) ** 3)


def _check(real: Features, synthetic: Features) -> None:
    if min(len(real), len(synthetic)) < 2:
        raise ValueError(f"features: expected at least 2 samples a side, got {len(real)} and {len(synthetic)}")
    if real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"features: expected equal dimensions, got {real.shape[1]} and {synthetic.shape[1]}")
