"""Brightness inside lesions: the bias against the real ones, and how far two prompts separate."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float64
from scipy import stats

from promptlesion.data.intensity import intensity_tolerance_hu
from promptlesion.evaluation.lesions import LesionCrop
from promptlesion.evaluation.results import IntensityRow, PromptPair, PromptRow, PromptSwitch


def mean_hu_by_type(lesions: Iterable[LesionCrop], lesion_types: Sequence[str]) -> dict[str, Float64[np.ndarray, " _"]]:
    """Mean HU of every lesion, by type; each type present."""
    values: dict[str, list[float]] = {name: [] for name in lesion_types}
    for lesion in lesions:
        values[lesion.lesion_type].append(lesion.mean_hu)
    return {name: np.array(means, dtype=np.float64) for name, means in values.items()}


def intensity_rows(
    compared: str,
    real_hu: Mapping[str, Float64[np.ndarray, " _"]],
    compared_hu: Mapping[str, Float64[np.ndarray, " _"]],
) -> tuple[IntensityRow, ...]:
    """Compare the lesions' mean HU with the real ones, type by type; a type missing on a side has no row.

    `compared` names the second side: 'autoencoded' or 'synthetic'.
    """
    rows = []
    for lesion_type, real in real_hu.items():
        others = compared_hu.get(lesion_type, np.empty(0))
        if not len(real) or not len(others):
            continue
        real_mean, compared_mean = float(real.mean()), float(others.mean())
        bias, tolerance = compared_mean - real_mean, intensity_tolerance_hu(real_mean)
        rows.append(
            IntensityRow(
                lesion_type=lesion_type,
                compared=compared,
                num_real=len(real),
                num_compared=len(others),
                real_mean_hu=real_mean,
                compared_mean_hu=compared_mean,
                bias_hu=bias,
                relative_bias=bias / abs(real_mean) if real_mean else None,
                tolerance_hu=tolerance,
                is_within_tolerance=abs(bias) <= tolerance,
            )
        )
    return tuple(rows)


def area_under_curve(lower: Float64[np.ndarray, " first"], higher: Float64[np.ndarray, " second"]) -> float:
    """Probability that a value of `higher` exceeds one of `lower`, ties counted half (Mann & Whitney)."""
    if not len(lower) or not len(higher):
        raise ValueError(f"AUC: expected values on both sides, got {len(lower)} and {len(higher)}")
    return float(stats.mannwhitneyu(higher, lower).statistic) / (len(lower) * len(higher))


def prompt_switch(
    encoder: str,
    mean_hu: Mapping[str, Float64[np.ndarray, " _"]],
    real_mean_hu: Mapping[str, float] | None = None,
) -> PromptSwitch:
    """Sum up a switch of the prompt alone; `mean_hu` holds, per prompt, the same lesions in one order."""
    counts = {len(values) for values in mean_hu.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"prompt switch: expected the same lesions under every prompt, got counts {counts}")
    rows = []
    for prompt, values in mean_hu.items():
        mean, real = float(values.mean()), (real_mean_hu or {}).get(prompt)
        is_within = None if real is None else abs(mean - real) <= intensity_tolerance_hu(real)
        rows.append(
            PromptRow(
                prompt=prompt,
                mean_hu=mean,
                std_hu=float(values.std()),
                real_mean_hu=real,
                is_within_tolerance=is_within,
            )
        )
    pairs = tuple(
        PromptPair(first=first, second=second, auc=area_under_curve(mean_hu[first], mean_hu[second]))
        for first, second in combinations(mean_hu, 2)
    )
    return PromptSwitch(encoder=encoder, num_lesions=counts.pop(), rows=tuple(rows), pairs=pairs)
