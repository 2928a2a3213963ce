"""The charts draw what they were given."""

from tests.experiment.made_up import case_scores, results

from promptlesion.experiment.figures import dice_figure


def test_dice_figure_joins_each_subjects_values() -> None:
    comparison = results().main
    assert comparison is not None
    figure = dice_figure(comparison, case_scores())
    assert [axes.get_title() for axes in figure.axes] == [
        "calcified plaque\nN = 12",
        "liver tumor\nN = 12",
        "all types\nN = 12",
    ]
    pairs = [tuple(line.get_xdata()) for line in figure.axes[0].get_lines() if tuple(line.get_ydata()) == (0, 1)]
    assert {(0.3, 0.45), (0.5, 0.55)} <= set(pairs)  # the case without a lesion is not drawn
    assert len(pairs) == 3  # the third is the dashed line
