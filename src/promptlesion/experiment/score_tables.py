"""Tables of how well the segmentation networks do, each once."""

from collections.abc import Callable, Mapping, Sequence

from promptlesion.evaluation.method_comparison import ALL_SIZES, ALL_TYPES, METRICS, MethodRow, Metric, rows_of
from promptlesion.evaluation.results import Estimate
from promptlesion.evaluation.wording import estimate_text, readable, signed_text
from promptlesion.experiment.results import CaseScore, Comparison, ExperimentResults
from promptlesion.experiment.table import Table
from promptlesion.methods import REAL

_METRIC_WORDS: dict[Metric, str] = {
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 (mm)",
    "volume_error_percent": "volume error (%)",
    "sensitivity": "lesion sensitivity",
    "precision": "lesion precision",
    "false_positives_per_scan": "false positives a scan",
}
_DECIMALS: dict[Metric, int] = {"hd95_mm": 1, "volume_error_percent": 0, "false_positives_per_scan": 2}


def difference_table(results: ExperimentResults, comparison: Comparison, metric: Metric) -> Table:
    """A metric by type: value with its interval, and the difference to real scans alone with interval and p."""
    rows = comparison.rows_of(metric)
    types = type_names(rows)
    columns = ["method", "seeds"]
    for name in types:
        number = max(row.num_subjects for row in rows if row.lesion_type == name)
        columns += [f"{readable(name)} (N = {number})", "less real (p)"]
    body = []
    for method in _methods(rows):
        by_type = {row.lesion_type: row for row in rows if row.method == method}
        texts = [method, str(max(len(row.trainings) for row in by_type.values()))]
        for name in types:
            texts += [estimate_text(by_type[name].value), difference_text(by_type[name])]
        body.append(tuple(texts))
    words = _METRIC_WORDS[metric] + (f" ({results.surface_tolerance_mm:g} mm)" if metric == "surface_dice" else "")
    caption = (
        f"{words} on held-out subjects, trained with {comparison.num_subjects} real subjects, real : synthetic "
        f"1 : {comparison.ratio:g}. Mean over subjects that have the lesion, seeds averaged within a subject first; "
        f"{results.interval_level:.0%} bootstrap interval over subjects; p of the paired permutation test against "
        "real scans alone."
    )
    return Table(metric.replace("_", "-"), caption, tuple(columns), tuple(body))


def rivals_table(comparison: Comparison) -> Table:
    """Dice of PromptLesion less that of every other method that paints, by type: is it better than pasting?"""
    return _less_rivals(
        comparison,
        "rivals",
        f"Dice of {comparison.held_against_rivals} less that of each other method, paired by subject, with interval "
        "and p as above; above zero PromptLesion is better.",
        {name: readable(name) for name in type_names(comparison.rivals)},
        {(row.method, row.lesion_type): row for row in rows_of(comparison.rivals)},
    )


def rivals_metric_table(comparison: Comparison) -> Table:
    """Every metric of PromptLesion less that of every other method that paints, the mean over the types."""
    overall = type_names(comparison.rivals)[-1]
    return _less_rivals(
        comparison,
        "rivals-metrics",
        f"Every metric of {comparison.held_against_rivals} less that of each other method, {readable(overall)}, paired "
        "by subject, with interval and p as above. Of HD95, volume error and false positives below zero is better.",
        {metric: _METRIC_WORDS[metric] for metric in METRICS},
        {(row.method, row.metric): row for row in comparison.rivals if row.lesion_type == overall},
    )


def _less_rivals(
    comparison: Comparison,
    name: str,
    caption: str,
    columns: Mapping[str, str],
    rows: Mapping[tuple[str, str], MethodRow],
) -> Table:
    """PromptLesion less every other method: a line a method, by the columns' keys, whose headings are given."""
    ours = comparison.held_against_rivals
    return Table(
        name,
        caption,
        (f"{ours} less", *columns.values()),
        tuple(
            (
                method,
                *(difference_text(_turned(rows[method, key])) if (method, key) in rows else "–" for key in columns),
            )
            for method in _methods(comparison.rivals)
            if method != ours
        ),
    )


def trainings_table(comparison: Comparison) -> Table:
    """Dice of each training: how far two of the same method lie apart by chance, which no interval above holds."""
    rows = comparison.rows_of()
    by_method = {(row.method, row.lesion_type): row for row in rows}
    types = type_names(rows)
    return Table(
        "trainings",
        "Dice of each training, in the order of the seeds. Intervals and p above are over subjects alone; how far two "
        "trainings of the same method lie apart by chance is seen here.",
        ("method", *(readable(name) for name in types)),
        tuple(
            (
                method,
                *(
                    ", ".join(estimate_text(Estimate(value=each)) for each in by_method[method, name].trainings)
                    for name in types
                ),
            )
            for method in _methods(rows)
        ),
    )


def metric_table(comparison: Comparison) -> Table:
    """Every metric by type and method."""
    rows = [row for row in comparison.rows if row.size == ALL_SIZES]
    return Table(
        "metrics",
        f"Every metric, {comparison.num_subjects} real subjects, ratio {comparison.ratio:g}; with its interval.",
        ("lesion type", "method", *(_METRIC_WORDS[metric] for metric in METRICS)),
        _by_metric(rows, lambda row: (row.lesion_type,)),
    )


def size_table(comparison: Comparison) -> Table:
    """Every metric by type, size and method, lesion by lesion."""
    rows = [row for row in comparison.rows if row.size != ALL_SIZES]
    return Table(
        "sizes",
        "By size, lesions scored one by one; the sizes of a type meet at the median diameter of its true lesions.",
        ("lesion type", "size", "method", *(_METRIC_WORDS[metric] for metric in METRICS)),
        _by_metric(rows, lambda row: (row.lesion_type, row.size)),
    )


def false_positive_table(results: ExperimentResults) -> Table:
    """How often a lesion is drawn where there is none of the type."""
    clean = [score for score in results.case_scores if not score.num_truth_voxels]
    types = results.dataset.lesion_types

    def counted(method: str, name: str) -> str:
        drawn = [each.num_predicted_voxels > 0 for each in clean if (each.method, each.lesion_type) == (method, name)]
        return f"{sum(drawn)} of {len(drawn)}" if drawn else "–"

    return Table(
        "false-positives",
        "Held-out scans without such a lesion in which one was drawn all the same; every training counts.",
        ("method", *map(readable, types)),
        tuple(
            (method, *(counted(method, name) for name in types))
            for method in dict.fromkeys(score.method for score in results.case_scores)
        ),
    )


def case_table(results: ExperimentResults) -> Table:
    """Every held-out case, one by one."""

    def texts(score: CaseScore) -> tuple[str, ...]:
        figures = [(score.dice, 3), (score.surface_dice, 3), (score.hd95_mm, 1)]
        return (
            score.case,
            score.method,
            str(score.seed),
            readable(score.lesion_type),
            *("–" if value is None else f"{value:.{decimals}f}" for value, decimals in figures),
            str(score.num_truth_voxels),
            str(score.num_predicted_voxels),
        )

    metrics = (_METRIC_WORDS[metric] for metric in ("dice", "surface_dice", "hd95_mm"))
    return Table(
        "cases",
        "A dash: not counted (no lesion in truth and prediction; HD95 also where one of them is empty).",
        ("case", "method", "seed", "lesion type", *metrics, "voxels, truth", "voxels, predicted"),
        tuple(map(texts, results.case_scores)),
    )


def fit_table(comparison: Comparison) -> Table:
    """Dice of real scans alone on the scans it was trained on, and on held-out ones: what more lesions could add."""
    held_out = {row.lesion_type: row.value.value for row in comparison.rows_of() if row.method == REAL}
    body = [
        (readable(name), str(comparison.num_lesions[name]), f"{trained:.3f}", f"{found:.3f}", f"{trained - found:+.3f}")
        for name, trained in comparison.training_dice.items()
        if (found := held_out.get(name)) is not None
    ]
    return Table(
        "fit",
        f"Dice of the networks trained on {comparison.num_subjects} real subjects alone, on these very scans and on "
        "held-out ones. Where both are alike, further lesions, real or painted, have little to add, and a longer "
        "training or a larger network has; where the first is much higher, few lesions were learned by heart.",
        ("lesion type", "training lesions", "on training scans", "on held-out scans", "difference"),
        tuple(body),
    )


def sweep_table(results: ExperimentResults) -> Table:
    """Mean Dice over the types for every number of real subjects and every ratio."""
    body = []
    for comparison in results.comparisons:
        rows = comparison.rows_of()
        last = type_names(rows)[-1] if rows else ""
        body += [
            (
                str(comparison.num_subjects),
                f"{comparison.ratio:g}",
                row.method,
                readable(row.lesion_type),
                estimate_text(row.value),
                difference_text(row),
            )
            for row in rows
            if row.lesion_type == last
        ]
    return Table(
        "sweep",
        "Dice against the number of real training subjects and the ratio of synthetic to real.",
        ("real subjects", "ratio", "method", "lesion type", "Dice", "less real (p)"),
        tuple(body),
    )


def difference_text(row: MethodRow) -> str:
    """`+0.031 [+0.002, +0.060] (p 0.04)`; a dash for the reference itself."""
    if row.difference is None:
        return "–"
    if row.p_value is None:
        return signed_text(row.difference)
    return f"{signed_text(row.difference)} ({p_text(row.p_value)})"


def p_text(p_value: float, equals: str = "p ") -> str:
    """`p 0.040`, or what else stands before the figure; `p < 0.001` below that."""
    return f"{equals}{p_value:.3f}" if p_value >= 0.001 else "p < 0.001"


def _turned(row: MethodRow) -> MethodRow:
    """Return the row with its difference the other way round: the reference less the method."""
    difference = row.difference
    if difference is None:
        return row
    value, low, high = (None if each is None else -each for each in (difference.value, difference.low, difference.high))
    return row.model_copy(update={"difference": Estimate(value=value, low=high, high=low)})


def type_names(rows: Sequence[MethodRow]) -> list[str]:
    """Return the types in order, the mean over them last."""
    names = list(dict.fromkeys(row.lesion_type for row in rows))
    return sorted(names, key=lambda name: name == ALL_TYPES)


def _methods(rows: Sequence[MethodRow]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _by_metric(rows: Sequence[MethodRow], key: Callable[[MethodRow], tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Put the metrics of a type (and size) and method side by side."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        texts = groups.setdefault((*key(row), row.method), {})
        texts[row.metric] = estimate_text(row.value, _DECIMALS.get(row.metric, 3))
    return tuple(
        (readable(names[0]), *names[1:], *(texts.get(metric, "–") for metric in METRICS))
        for names, texts in groups.items()
    )
