"""Every table of an experiment that its results can fill."""

from collections.abc import Iterator

from promptlesion.experiment.painting_tables import (
    appearance_table,
    asked_table,
    distance_table,
    distribution_table,
    intensity_table,
    memorisation_table,
    prompt_table,
    time_table,
    work_table,
)
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.score_tables import (
    case_table,
    difference_table,
    false_positive_table,
    fit_table,
    metric_table,
    rivals_metric_table,
    rivals_table,
    size_table,
    sweep_table,
    trainings_table,
)
from promptlesion.experiment.table import Table


def all_tables(results: ExperimentResults) -> Iterator[Table]:
    """Yield the paper's Tables 2 and 3, Dice and every other metric, single cases, and what is painted."""
    main = results.main
    if main is not None:
        for metric in ("dice", "surface_dice"):
            if main.rows_of(metric):
                yield difference_table(results, main, metric)
        if main.rivals:
            yield rivals_table(main)
            yield rivals_metric_table(main)
        if len(results.seeds) > 1:
            yield trainings_table(main)
        yield metric_table(main)
        yield size_table(main)
        if main.training_dice:
            yield fit_table(main)
    if results.case_scores:
        yield false_positive_table(results)
        yield case_table(results)
    yield time_table(results)
    if results.times:
        yield work_table(results)
    if results.fidelity:
        yield distance_table(results, "fid")
        yield distance_table(results, "kid")
        yield distribution_table(results)
        if any(each.measured.appearance for each in results.fidelity):
            yield appearance_table(results)
        if any(each.measured.asked for each in results.fidelity):
            yield asked_table(results)
        yield memorisation_table(results)
        yield intensity_table(results)
        yield prompt_table(results)
    if len(results.comparisons) > 1:
        yield sweep_table(results)
