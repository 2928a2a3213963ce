"""The experiment's tables, each once, in any of three forms: HTML, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from promptlesion.evaluation.method_comparison import ALL_SIZES, ALL_TYPES, METRICS, MethodRow, dice_rows
from promptlesion.evaluation.results import Estimate, FidelityRow
from promptlesion.evaluation.wording import duration_text, estimate_text, readable, signed_text
from promptlesion.experiment.results import Comparison, ExperimentResults
from promptlesion.methods import REAL
from promptlesion.training.atomic import write_text

_METRIC_WORDS = {
    "dice": "Dice",
    "surface_dice": "surface Dice",
    "hd95_mm": "HD95 (mm)",
    "volume_error_percent": "volume error (%)",
    "sensitivity": "lesion sensitivity",
    "precision": "lesion precision",
    "false_positives_per_scan": "false positives a scan",
}
_DECIMALS = {"hd95_mm": 1, "volume_error_percent": 0, "false_positives_per_scan": 2}
_MOST_NAMED = 5
_PAPER_TIMES = {"promptlesion-transformer": 3.1, "difftumor": 4.0, "med-ddpm": 3.3}
_PAPER_FID = {
    "difftumor": (4.3, 5.5, 5.2, 5.3, 4.8, 5.0),
    "med-ddpm": (4.5, 6.8, 5.9, 5.0, 6.7, 5.8),
    "promptlesion-onehot": (5.5, 5.9, 4.8, 5.2, 6.2, 5.5),
    "promptlesion-transformer": (5.3, 5.8, 5.0, 5.3, 5.2, 5.3),
}
_LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "–": "--", "³": "$^3$", "<": "$<$", ">": "$>$", "≥": r"$\geq$", "±": r"$\pm$"}
)
_PAPER_TYPES = ("calcified_plaque", "non_calcified_plaque", "liver_tumor", "kidney_tumor", "pancreas_tumor")


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns."""

    name: str
    """Of its files."""
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def all_tables(results: ExperimentResults) -> list[Table]:
    """Return the paper's Tables 2 and 3, the Dice table, every other metric, sizes, and what is painted."""
    main = main_comparison(results)
    return [
        *([dice_table(results, main)] if main else []),
        *([rivals_table(main), rivals_metric_table(main)] if main and main.rivals else []),
        *([trainings_table(main)] if main and len(results.seeds) > 1 else []),
        *([metric_table(main)] if main else []),
        *([size_table(main)] if main else []),
        *([fit_table(main)] if main and main.training_dice else []),
        time_table(results),
        *(distance_table(results, key) for key in ("fid", "kid") if results.fidelity),
        *([distribution_table(results)] if results.fidelity else []),
        *([memorisation_table(results)] if results.fidelity else []),
        *([sweep_table(results)] if len(results.comparisons) > 1 else []),
    ]


def main_comparison(results: ExperimentResults) -> Comparison | None:
    """Return the comparison at the main ratio with all real subjects, if it is there."""
    for comparison in results.comparisons:
        if (comparison.num_subjects, comparison.ratio) == (results.main_num_subjects, results.main_ratio):
            return comparison
    return None


def dice_table(results: ExperimentResults, comparison: Comparison) -> Table:
    """Dice by type: value with its interval, and the difference to real scans alone with interval and p."""
    rows = comparison.dice_rows
    types = _types(rows)
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
    caption = (
        f"Dice on held-out subjects, trained with {comparison.num_subjects} real subjects, real : synthetic "
        f"1 : {comparison.ratio:g}. Mean over subjects that have the lesion, seeds averaged within a subject first; "
        f"{results.interval_level:.0%} bootstrap interval over subjects; p of the paired permutation test against "
        "real scans alone."
    )
    return Table("dice", caption, tuple(columns), tuple(body))


def rivals_table(comparison: Comparison) -> Table:
    """Dice of PromptLesion less that of every other method that paints, by type: is it better than pasting?"""
    return _less_rivals(
        comparison,
        "rivals",
        f"Dice of {comparison.held_against_rivals} less that of each other method, paired by subject, with interval "
        "and p as above; above zero PromptLesion is better.",
        {name: readable(name) for name in _types(comparison.rivals)},
        {(row.method, row.lesion_type): row for row in dice_rows(comparison.rivals)},
    )


def rivals_metric_table(comparison: Comparison) -> Table:
    """Every metric of PromptLesion less that of every other method that paints, the mean over the types."""
    overall = _types(comparison.rivals)[-1]
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
    rows = comparison.dice_rows
    by_method = {(row.method, row.lesion_type): row for row in rows}
    types = _types(rows)
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


def fit_table(comparison: Comparison) -> Table:
    """Dice of real scans alone on the scans it was trained on, and on held-out ones: what more lesions could add."""
    held_out = {row.lesion_type: row.value.value for row in comparison.dice_rows if row.method == REAL}
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


def time_table(results: ExperimentResults) -> Table:
    """The paper's Table 2: training time, and volumes painted a minute."""
    return Table(
        "table2-time",
        f"Table 2 of the paper. Here: {results.machine}. The paper's: one V100, patches of 96³, 400 steps; 168 h for "
        "the autoencoder and 96 h for each diffusion model.",
        ("method", "real subjects", "autoencoder", "training", "patch", "sampling", "volumes a minute", "paper's"),
        tuple(
            (
                time.method,
                str(time.num_subjects),
                "–" if time.autoencoder_seconds is None else duration_text(time.autoencoder_seconds),
                duration_text(time.training_seconds),
                "–" if time.patch_voxels is None else f"{time.patch_voxels}³",
                time.sampling,
                "–" if time.volumes_per_minute is None else f"{time.volumes_per_minute:.0f}",
                f"{_PAPER_TIMES[time.method]:.1f}" if time.method in _PAPER_TIMES else "–",
            )
            for time in results.times
        ),
    )


def distance_table(results: ExperimentResults, key: str) -> Table:
    """The paper's Table 3: FID (or KID) by type and on average, for each extractor; the paper's FID beside it."""
    types = results.dataset.lesion_types
    groups: list[tuple[str, str, Sequence[FidelityRow]]] = [
        (each.method, str(each.num_subjects), each.measured.fidelity) for each in results.fidelity
    ]
    groups.append(("real training lesions", str(results.main_num_subjects), results.real_against_real))
    body = []
    for method, number, distances in groups:
        for network in dict.fromkeys(row.network for row in distances):
            of_network = {row.lesion_type: row for row in distances if row.network == network}
            estimates: list[Estimate | None] = [
                getattr(of_network[name], key) if name in of_network else None for name in types
            ]
            known = [each.value for each in estimates if each is not None and each.value is not None]
            counts = ", ".join(
                f"{of_network[name].num_real}/{of_network[name].num_synthetic}" if name in of_network else "–"
                for name in types
            )
            texts = [estimate_text(each, 2) if each else "–" for each in estimates]
            average = f"{sum(known) / len(known):.2f}" if len(known) == len(types) else "–"
            body.append((method, number, network, *texts, average, counts))
    caption = (
        f"Table 3 of the paper: lesion-{key.upper()} of held-out real lesions against painted ones, with its interval; "
        "N: real/painted, in the order of the types. Lower is better. Figures of different N do not compare for FID; "
        "KID has no such bias. Last rows: held-out against training lesions, both real."
    )
    if key == "fid" and tuple(types) == _PAPER_TYPES:
        body += [
            (f"{method}, paper", "", "MedicalNet ResNet-50", *(f"{value:.1f}" for value in values), "")
            for method, values in _PAPER_FID.items()
        ]
        caption += " The paper's: other data, other networks."
    columns = ("method", "real subjects", "features", *(readable(name) for name in types), "average", "N")
    return Table(f"table3-{key}", caption, columns, tuple(body))


def distribution_table(results: ExperimentResults) -> Table:
    """Attenuation, texture and size of painted against held-out real lesions; of plaque also its burden."""
    body = tuple(
        (
            each.method,
            str(each.num_subjects),
            readable(row.lesion_type),
            readable(row.measure),
            f"{row.num_real}/{row.num_synthetic}",
            f"{row.real_mean:.2f} ± {row.real_std:.2f}",
            f"{row.synthetic_mean:.2f} ± {row.synthetic_std:.2f}",
            f"{row.wasserstein:.2f}",
            f"{row.ks_p_value:.3f}",
        )
        for each in results.fidelity
        for row in each.measured.distributions
    )
    return Table(
        "distributions",
        "Held-out real lesions against painted ones: mean ± standard deviation between lesions, Wasserstein distance "
        "in the measure's unit, p of the Kolmogorov-Smirnov test (which takes lesions for independent).",
        ("method", "real subjects", "lesion type", "measure", "N", "real", "painted", "Wasserstein", "p"),
        body,
    )


def memorisation_table(results: ExperimentResults) -> Table:
    """How many painted lesions are copies of training lesions, and the nearest ones by name."""
    body = []
    for each in results.fidelity:
        found = each.measured.memorisation
        if found is None:
            continue
        nearest = sorted(found.synthetic, key=lambda row: row.distance - row.threshold)[:1]
        named = found.copies[:_MOST_NAMED] or nearest
        body.append(
            (
                each.method,
                str(each.num_subjects),
                str(len(found.synthetic)),
                str(len(found.copies)),
                _median([row.distance for row in found.synthetic]),
                _median([row.distance for row in found.real]),
                "; ".join(f"{row.case} is like {row.nearest_case} ({row.distance:.2f})" for row in named),
            )
        )
    return Table(
        "memorisation",
        "Texture distance of every painted lesion to its nearest training lesion of the type (0: a copy), against that "
        "of real lesions to those of other subjects. Copies: nearer than all but one in a thousand strangers are. "
        "Named: the copies, else the lesion that comes nearest to being one.",
        ("method", "real subjects", "painted", "copies", "median distance", "between real ones", "nearest"),
        tuple(body),
    )


def sweep_table(results: ExperimentResults) -> Table:
    """Mean Dice over the types for every number of real subjects and every ratio."""
    body = []
    for comparison in results.comparisons:
        rows = comparison.dice_rows
        last = _types(rows)[-1] if rows else ""
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


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """Write every table as CSV and LaTeX."""
    for table in tables:
        write_text(folder / f"{table.name}.csv", as_csv(table))
        write_text(folder / f"{table.name}.tex", as_latex(table))


def as_csv(table: Table) -> str:
    """Return a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def as_latex(table: Table) -> str:
    """Return a table as LaTeX that needs the package booktabs alone."""
    lines = [
        r"\begin{table}",
        r"\caption{" + _escaped(table.caption) + "}",
        r"\begin{tabular}{l" + "r" * (len(table.columns) - 1) + "}",
        r"\toprule",
        " & ".join(_escaped(text) for text in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(_escaped(text) for text in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


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


def _median(values: Sequence[float]) -> str:
    return f"{median(values):.2f}" if values else "–"


def _types(rows: Sequence[MethodRow]) -> list[str]:
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


def _escaped(text: str) -> str:
    return text.replace(">=", "≥").translate(_LATEX)
