"""What a terminal shows of an experiment: the Dice table, and in plain words what every method did."""

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

from promptlesion.experiment.report import summary_sentences
from promptlesion.experiment.results import ExperimentResults
from promptlesion.experiment.tables import dice_table, main_comparison


def experiment_parts(results: ExperimentResults) -> Iterator[RenderableType]:
    """Yield in plain words what every method did, and the Dice table."""
    comparison = main_comparison(results)
    if comparison is not None:
        dice = dice_table(results, comparison)
        table = Table("lesion type", "method", "Dice", "less real (p)", box=SIMPLE)
        for column, name in enumerate(dice.columns[2::2]):  # side by side they would not fit a terminal
            for index, (method, _, *cells) in enumerate(dice.rows):
                table.add_row("" if index else name, method, *cells[2 * column : 2 * column + 2])
        yield (dice.caption)
        yield table
    yield from summary_sentences(results)
