"""The table of several methods: each metric per lesion type and size, over subjects and seeds, against a reference.

What is counted, the same for all methods:

- `dice`, `surface_dice`, `volume_error_percent`: cases whose truth has the type; a missed one scores 0, 0 and 100 %.
- `hd95_mm`: those where something was predicted, too. A method that misses the hard cases thereby looks better: read it
  with the sensitivity. Differences are over the subjects that both methods are counted in.
- `sensitivity`: found true lesions by all, of a subject. `precision`: right predicted lesions by all; a subject without
  a prediction of the type is not counted.
- `false_positives_per_scan`: every case, with and without a lesion of the type.

By size, lesions are scored one by one (see `lesion_matching`); the two strata of a type meet at the median diameter of
its true lesions. Precision and false positives go by the predicted lesion's own size.
"All types" is the mean over the types that the truth has.

A seed that one of two methods has no training with is left out of their difference: trainings of one seed lie high or
low together.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from promptlesion.evaluation.bootstrap import sign_flip_p_value, type_mean_bootstrap
from promptlesion.evaluation.lesion_matching import PredictedLesion, TrueLesion
from promptlesion.evaluation.results import Estimate, Frozen
from promptlesion.evaluation.segmentation_metrics import LesionScore

Metric = Literal[
    "dice", "surface_dice", "hd95_mm", "volume_error_percent", "sensitivity", "precision", "false_positives_per_scan"
]
METRICS: dict[Metric, bool] = {
    "dice": True,
    "surface_dice": True,
    "hd95_mm": False,
    "volume_error_percent": False,
    "sensitivity": True,
    "precision": True,
    "false_positives_per_scan": False,
}
"""Every metric in the order of the tables, and whether more of it is better."""

ALL_TYPES, ALL_SIZES = "all types", "all sizes"


class MethodRow(Frozen):
    """One method, lesion type, size and metric, over the held-out subjects; seeds averaged within a subject first."""

    method: str = Field(description="the method's name")
    lesion_type: str = Field(description="the type's name, or 'all types': the mean over the types")
    size: str = Field(description="'all sizes', or equal-volume diameters such as '< 4.2 mm'")
    metric: Metric = Field(description="share of 1, mm, percent or number per scan, as its name says")
    num_subjects: int = Field(description="subjects that this method is counted in")
    value: Estimate = Field(description="mean over subjects and its interval; None where a type is counted in nobody")
    num_paired_subjects: int = Field(default=0, description="subjects that both methods are counted in")
    difference: Estimate | None = Field(default=None, description="this method minus the reference, paired by subject")
    p_value: float | None = Field(default=None, description="paired permutation test of that difference, two-sided")
    trainings: tuple[float | None, ...] = Field(
        description="the value of each training, one a seed; None where a type is counted in nobody"
    )


def method_rows(
    scores: Mapping[str, Sequence[Sequence[LesionScore] | None]],
    *,
    reference: str,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> tuple[MethodRow, ...]:
    """Compare methods on the same cases: by type (and all types), by size within a type, by metric, by method.

    Args:
        scores: by method, the scores of one training each, seed by seed; None where one has no training with a seed.
        reference: the method the others are compared with.
        seed: of the bootstrap's draws and the permutations.
        num_resamples: of the bootstrap.
        level: of the intervals.

    Raises:
        ValueError: the trainings were not scored on the same cases, or the reference is none of the methods.
    """
    _check(scores, reference)
    first = next(run for run in scores[reference] if run is not None)
    subjects = list(dict.fromkeys(score.subject for score in first))
    types = list(dict.fromkeys(score.lesion_type for score in first))
    there = {score.lesion_type for score in first if score.num_truth_voxels}
    strata = [(name, size, within) for name in types for size, within in _strata(first, name).items()]
    lacking = {method: {index for index, run in enumerate(runs) if run is None} for method, runs in scores.items()}
    options = {"seed": seed, "num_resamples": num_resamples}
    groups: dict[tuple[str, str], list[MethodRow]] = {stratum[:2]: [] for stratum in strata}
    for metric in METRICS:
        tables = {
            stratum[:2]: {
                method: np.stack([_subject_values(run or (), subjects, metric, stratum) for run in runs])
                for method, runs in scores.items()
            }
            for stratum in strata
        }
        if len(there) > 1:
            whole = [tables[name, ALL_SIZES] for name in types if name in there]
            tables[ALL_TYPES, ALL_SIZES] = {
                method: np.concatenate([table[method] for table in whole], axis=2) for method in scores
            }
        for (lesion_type, size), table in tables.items():
            if all(np.isnan(values).all() for values in table.values()):
                continue  # nothing to count: the truth has no such lesion
            for method, by_seed in table.items():
                values = _seed_mean(by_seed)
                is_reference = method == reference
                either = lacking[method] | lacking[reference]
                differences = _seed_mean(_without(by_seed, either)) - _seed_mean(_without(table[reference], either))
                row = MethodRow(
                    method=method,
                    lesion_type=lesion_type,
                    size=size,
                    metric=metric,
                    num_subjects=_num_counted(values),
                    value=type_mean_bootstrap(values, level=level, **options),
                    num_paired_subjects=0 if is_reference else _num_counted(differences),
                    difference=None if is_reference else type_mean_bootstrap(differences, level=level, **options),
                    p_value=None if is_reference else sign_flip_p_value(differences, seed=seed),
                    trainings=tuple(_mean_over_types(training) for training in _without(by_seed, lacking[method])),
                )
                groups.setdefault((lesion_type, size), []).append(row)
    return tuple(row for group in groups.values() for row in group)


_Within = Callable[[float], bool] | None
_Stratum = tuple[str, str, _Within]


def rows_of(rows: Iterable[MethodRow], metric: Metric = "dice") -> list[MethodRow]:
    """Return the rows that hold a metric of lesions of all sizes together."""
    return [row for row in rows if (row.metric, row.size) == (metric, ALL_SIZES)]


def _strata(scores: Sequence[LesionScore], lesion_type: str) -> dict[str, _Within]:
    """All sizes of a type, and its smaller and larger lesions, divided at the median, rounded to 0.1 mm."""
    diameters = [
        lesion.diameter_mm for score in scores if score.lesion_type == lesion_type for lesion in score.true_lesions
    ]
    strata: dict[str, _Within] = {ALL_SIZES: None}
    if diameters:
        middle = round(median(diameters), 1)
        if min(diameters) < middle <= max(diameters):
            strata[f"< {middle:.1f} mm"] = lambda diameter_mm: diameter_mm < middle
            strata[f">= {middle:.1f} mm"] = lambda diameter_mm: diameter_mm >= middle
    return strata


def _subject_values(
    scores: Sequence[LesionScore], subjects: Sequence[str], metric: Metric, stratum: _Stratum
) -> Float64[np.ndarray, "subjects 1"]:
    """One value a subject, NaN where it is not counted."""
    lesion_type, _, within = stratum
    values: dict[str, list[float | None]] = defaultdict(list)
    for score in scores:
        if score.lesion_type == lesion_type:
            values[score.subject] += _values(score, metric, within)
    counted = {subject: [value for value in found if value is not None] for subject, found in values.items()}
    return np.array([[np.mean(counted[name]) if counted.get(name) else np.nan] for name in subjects])


def _values(score: LesionScore, metric: Metric, within: _Within) -> Sequence[float | None]:
    """Return what one case adds to its subject's mean: a value a case, or one a lesion."""
    true: list[TrueLesion] = [lesion for lesion in score.true_lesions if within is None or within(lesion.diameter_mm)]
    predicted: list[PredictedLesion] = [
        lesion for lesion in score.predicted_lesions if within is None or within(lesion.diameter_mm)
    ]
    match metric:
        case "sensitivity":
            return [float(lesion.is_found) for lesion in true]
        case "precision":
            return [float(lesion.is_right) for lesion in predicted]
        case "false_positives_per_scan":
            return [float(sum(not lesion.is_right for lesion in predicted))]
        case _ if within is None:
            return [getattr(score, metric)] if score.num_truth_voxels else []
        case _:
            return [getattr(lesion, metric) for lesion in true]


def _without(
    by_seed: Float64[np.ndarray, "seeds subjects types"], lacking: set[int]
) -> Float64[np.ndarray, "kept subjects types"]:
    kept: Float64[np.ndarray, "kept subjects types"] = by_seed[[i for i in range(len(by_seed)) if i not in lacking]]
    return kept


def _seed_mean(by_seed: Float64[np.ndarray, "seeds subjects types"]) -> Float64[np.ndarray, "subjects types"]:
    """Average over the seeds that are counted; NaN where none is."""
    is_counted = ~np.isnan(by_seed)
    counts = is_counted.sum(axis=0)
    sums = np.where(is_counted, by_seed, 0.0).sum(axis=0)
    means: Float64[np.ndarray, "subjects types"] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _mean_over_types(values: Float64[np.ndarray, "subjects types"]) -> float | None:
    """Mean over types of the mean over subjects; None where a type is counted in nobody."""
    return float(np.nanmean(values, axis=0).mean()) if (~np.isnan(values)).any(axis=0).all() else None


def _num_counted(values: Float64[np.ndarray, "subjects types"]) -> int:
    return int((~np.isnan(values)).any(axis=1).sum())


def _check(scores: Mapping[str, Sequence[Sequence[LesionScore] | None]], reference: str) -> None:
    if reference not in scores:
        raise ValueError(f"reference {reference!r}: expected one of the methods {', '.join(scores)}")
    expected: set[tuple[str, str]] | None = None
    for method, runs in scores.items():
        there = [run for run in runs if run is not None]
        if not any(there):
            raise ValueError(f"{method}: expected the scores of at least one training, found none")
        for run in there:
            found = {(score.case, score.lesion_type) for score in run}
            expected = found if expected is None else expected
            if found != expected:
                odd = sorted(found ^ expected)[0]
                raise ValueError(
                    f"{method}: expected scores of the same cases and lesion types as the other methods and seeds, "
                    f"but {odd[1]} of {odd[0]} was scored for only some"
                )
