"""In plain words: whether what each method paints helped."""

from promptlesion.evaluation.method_comparison import ALL_TYPES, MethodRow
from promptlesion.evaluation.wording import readable
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.score_tables import p_text, rivals_table
from promptlesion.methods import REAL

_LEVEL = 0.05


def summary_sentences(results: ExperimentResults) -> list[str]:
    """Say of every method in plain words whether it changed the Dice, by the mean over the types and by type."""
    comparison = results.main
    if comparison is None:
        return ["Nothing could be compared: there is no segmentation network trained on real scans alone."]
    rows = comparison.rows_of()
    if not rows:
        return ["No held-out subject has a lesion, so whether synthetic lesions help was not measured."]
    names = {row.lesion_type for row in rows}
    overall = ALL_TYPES if ALL_TYPES in names else next(iter(names))
    sentences = []
    for row in rows:
        if row.lesion_type != overall or row.method == REAL or row.difference is None or row.value.value is None:
            continue
        single = [each for each in rows if each.method == row.method and each.lesion_type != overall]
        sentences.append(f"{row.method}: mean Dice {row.value.value:.3f}, {_verdict(row)}{_by_type(single)}.")
    if comparison.rivals:
        rivals = rivals_table(comparison)
        against = "; ".join(f"less {method} {overall_text}" for method, *_, overall_text in rivals.rows)
        sentences.append(f"{comparison.held_against_rivals}, {rivals.columns[-1]}, paired: {against}.")
    return sentences or ["No method that paints was compared with real scans alone."]


def _by_type(rows: list[MethodRow]) -> str:
    better, worse = ([readable(row.lesion_type) for row in rows if _is_clear(row, sign)] for sign in (1, -1))
    return "".join(
        f"; {word} for {', '.join(names)}" for word, names in (("better", better), ("worse", worse)) if names
    )


def _is_clear(row: MethodRow, sign: int) -> bool:
    """Return whether the interval of the difference lies on one side of zero, and test and trainings agree.

    Of few subjects the interval alone comes out too narrow, and neither it nor the test knows that another training
    would have come out otherwise: every one must lie on that side of real scans alone.
    """
    return _is_clear_over_subjects(row, sign) and _num_trainings(row, sign) == len(row.trainings)


def _is_clear_over_subjects(row: MethodRow, sign: int) -> bool:
    difference = row.difference
    if difference is None or difference.low is None or difference.high is None:
        return False
    if row.p_value is not None and row.p_value >= _LEVEL:
        return False
    return difference.low > 0 if sign > 0 else difference.high < 0


def _num_trainings(row: MethodRow, sign: int) -> int:
    """Return how many trainings lie on one side of real scans alone, the mean of all its trainings."""
    if row.difference is None or row.difference.value is None or row.value.value is None:
        return 0
    real = row.value.value - row.difference.value
    return sum(value is not None and sign * (value - real) > 0 for value in row.trainings)


def _verdict(row: MethodRow) -> str:
    difference = row.difference
    if difference is None or difference.value is None:
        return "not compared"
    tested = "" if row.p_value is None else f", {p_text(row.p_value, 'p = ')}"
    text = f"{difference.value:+.3f} against real scans alone"
    if difference.low is None or difference.high is None:
        return f"{text} (one subject, so no interval)"
    text += f" ({difference.low:+.3f} to {difference.high:+.3f}{tested})"
    for sign, words, side in ((1, "it helped here", "above"), (-1, "it did harm here", "below")):
        if _is_clear(row, sign):
            return f"{text}: {words}"
        if _is_clear_over_subjects(row, sign):
            number = f"{_num_trainings(row, sign)} of {len(row.trainings)} trainings"
            return f"{text}, but only {number} came out {side}: no clear help or harm"
    return f"{text}: no clear help or harm"
